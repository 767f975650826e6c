package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/audit"
	"github.com/mandate-sam/mandate/internal/database"
)

// auditHitCase is G6: a token from the cache over HTTP, whose record is
// durable before the answer, in files and in PostgreSQL; and what the flush
// alone costs.
var auditHitCase = benchCase{rows: []string{"G6/hit-file", "G6/hit-postgresql", "G6/flush-alone"}, run: runAuditHit}

func runAuditHit(ctx context.Context, e *env) (rows []row, err error) {
	err = withPostgres(func(address string) error {
		db, err := database.Open(ctx, database.Config{URL: address, Schemas: []database.Schema{audit.Schema()}})
		if err != nil {
			return err
		}
		defer db.Close()
		return withAudit(func(log *audit.Log, dir string) error {
			return runLog(audit.Config{DB: db}, func(shared *audit.Log) (err error) {
				rows, err = measureHits(ctx, e, dir, log, shared)
				return err
			})
		})
	})
	return rows, err
}

func measureHits(ctx context.Context, e *env, dir string, log, shared *audit.Log) (rows []row, err error) {
	d, err := newDoors(ctx, dir, log, shared)
	if err != nil {
		return nil, err
	}
	defer d.close()
	if err := d.connect(ctx); err != nil {
		return nil, err
	}
	size, err := d.loads[1].answerSize() // which makes the first record
	if err != nil {
		return nil, err
	}
	last, err := log.Last(1)
	if err != nil {
		return nil, err
	}
	f, err := newFlusher(filepath.Join(dir, "flushed"), len(last[0]))
	if err != nil {
		return nil, err
	}
	defer f.file.Close()
	addr, err := d.serve(newServer(f.flushed(bareHandler(size))))
	if err != nil {
		return nil, err
	}
	if err := d.load(ctx, addr); err != nil {
		return nil, err
	}
	slice := choose(e, 800*time.Millisecond, 400*time.Millisecond)
	file, pg, bare, flush := d.loads[1], d.loads[2], d.loads[3], d.loads[4]
	v, err := e.interleave(ctx, "G6", choose(e, 11, 5), indexed(bare.during(slice), log, shared), indexed(file.during(slice), log, shared), indexed(pg.during(slice), log, shared), flush.during(slice))
	if err != nil {
		return nil, err
	}
	for i, c := range []struct {
		name  string
		load  *load
		least float64
	}{{"G6/hit-file", file, 0.50}, {"G6/hit-postgresql", pg, 0.25}} {
		r := compare(c.name, "req/s", v[i+1], v[0])
		r.Note = fmt.Sprintf("%s; p50 %v ms, p99 %v ms", c.load.costs(bare), c.load.percentile(50), c.load.percentile(99))
		rows = append(rows, r.judge(&target{"ratio", ">=", c.least}, "server, load generator and disk share the processors; G6/flush-alone says what is left of bare net/http if it waits for the disk"))
	}
	r := compare("G6/flush-alone", "req/s", v[3], v[0])
	r.Note = flush.costs(bare)
	return append(rows, r.report()), nil
}

// indexed fills the indexes of logs before it measures: while records come
// they give way, and what they are behind nobody else is to pay for.
func indexed(c contender, logs ...*audit.Log) contender {
	return func(ctx context.Context) (float64, error) {
		for _, log := range logs {
			if _, err := log.Search(ctx, audit.Query{Limit: 1}); err != nil {
				return 0, err
			}
		}
		return c(ctx)
	}
}

// auditBatchCase is G14: how many records 64 writers get onto the disk in the
// time that one write and flush takes.
var auditBatchCase = benchCase{rows: []string{"G14/batch-factor"}, run: runAuditBatch}

func runAuditBatch(ctx context.Context, e *env) (rows []row, err error) {
	err = withAudit(func(log *audit.Log, dir string) error {
		if _, err := log.Record(ctx, auditRecord(0)); err != nil {
			return err
		}
		floor, err := newDiskFloor(dir, log)
		if err != nil {
			return err
		}
		defer floor.file.Close()
		floor.batch = floor.batch[:len(floor.batch)/callers]
		each, alone := choose(e, 300, 100), choose(e, 400, 150)
		v, err := e.interleave(ctx, "G14", choose(e, 15, 5),
			func(ctx context.Context) (float64, error) { return recordTogether(ctx, log, each) },
			func(context.Context) (float64, error) {
				start := time.Now()
				_, err := floor.append(alone)
				return float64(alone) / time.Since(start).Seconds(), err
			})
		if err != nil {
			return err
		}
		rows = []row{compare("G14/batch-factor", "records/s", v[0], v[1]).judge(&target{"ratio", ">=", 20}, "64 writers wait for the processors as much as for the disk")}
		return nil
	})
	return rows, err
}

// recordTogether lets 64 writers record, and returns the records a second.
func recordTogether(ctx context.Context, log *audit.Log, each int) (float64, error) {
	start := time.Now()
	err := concurrently(callers, func(c int) error {
		for range each {
			if _, err := log.Record(ctx, auditRecord(c)); err != nil {
				return err
			}
		}
		return nil
	})
	return float64(callers*each) / time.Since(start).Seconds(), err
}

// auditRecord is the record of a hit.
func auditRecord(n int) mandate.Record {
	p := partnerN(n % 16)
	return mandate.Record{
		Kind: mandate.KindIssued, Epoch: 1, Request: "TAKE2YJHSQ7VTNXMDJ6KQ4O3VI", Caller: "billing", Address: "192.0.2.77", Use: mandate.UseToken, Purpose: "invoice",
		Partner: p.Name, Grant: &p.Key, Generation: 1, Tenant: p.Key.Partner, Audience: "https://graph.microsoft.com", Granted: []string{"user_impersonation"},
		Rule: "billing", Policy: "3f2a", Reason: "rule billing allows it", Fingerprint: receiptHash, UTI: "u1", Correlation: "c1", Expires: time.Now().Add(time.Hour), Cached: true,
	}
}

// auditVerifyCase is G15: verifying an export beside hashing its lines and the
// tree over them, which nobody can leave out.
var auditVerifyCase = benchCase{rows: []string{"G15/verify"}, run: runAuditVerify}

func runAuditVerify(ctx context.Context, e *env) (rows []row, err error) {
	var data bytes.Buffer
	var key audit.Verifier
	err = withAudit(func(log *audit.Log, _ string) (err error) {
		records := choose(e, 100_000, 30_000)
		e.say("G15: recording %d", records)
		if _, err := recordTogether(ctx, log, records/callers); err != nil {
			return err
		}
		if err := log.Export(ctx, &data, audit.Export{Whole: true}); err != nil {
			return err
		}
		key, err = audit.ParseKey(log.Key())
		return err
	})
	if err != nil {
		return nil, err
	}
	// The log is closed: filling its index would take from both.
	v, err := e.interleave(ctx, "G15", choose(e, 15, 5),
		func(context.Context) (float64, error) { return verifyOnce(data.Bytes(), key) },
		func(context.Context) (float64, error) { return hashOnce(data.Bytes()) })
	if err != nil {
		return nil, err
	}
	return []row{compare("G15/verify", "us", v[0], v[1]).judge(&target{"ratio", "<=", 2}, "other work has the processors")}, nil
}

// verifyOnce verifies an export and returns the microseconds for one record.
func verifyOnce(data []byte, key audit.Verifier) (float64, error) {
	start := time.Now()
	v, err := audit.Verify(bytes.NewReader(data), audit.Verification{Key: key})
	if err == nil && !v.OK {
		err = errors.New(v.Problem)
	}
	return perOperation(time.Since(start), int(v.Records)), err
}

// hashOnce computes leaf hashes and the tree, and nothing else.
func hashOnce(data []byte) (float64, error) {
	start := time.Now()
	var stack []tlog.Hash
	n := 0
	for line := range bytes.Lines(data) {
		h := tlog.RecordHash(line[:len(line)-1])
		for i := n; i&1 == 1; i >>= 1 {
			h = tlog.NodeHash(stack[len(stack)-1], h)
			stack = stack[:len(stack)-1]
		}
		stack = append(stack, h)
		n++
	}
	return perOperation(time.Since(start), n), nil
}
