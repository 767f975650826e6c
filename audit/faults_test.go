package audit

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/internal/pgtest"
)

var faults = flag.Int("faults", 100, "how many random faults a log is put through")

// A badDisk fails while a dial is set, after writing half of what it was given.
type badDisk struct {
	file
	dials *dials
}

type dials struct {
	full, noSync, noCut atomic.Bool
	limit               atomic.Int64 // how long a file may get, if it is not 0
}

func (d *badDisk) WriteAt(p []byte, off int64) (int, error) {
	if room := d.dials.limit.Load() - off; room < int64(len(p)) && room > -off {
		n, _ := d.file.WriteAt(p[:max(0, room)], off)
		return n, syscall.ENOSPC
	}
	if d.dials.full.Load() {
		n, _ := d.file.WriteAt(p[:len(p)/2], off)
		return n, syscall.ENOSPC
	}
	n, err := d.file.WriteAt(p, off)
	if d.dials.noSync.Load() {
		err = syscall.EIO // of a file that is written through
	}
	return n, err
}

func (d *badDisk) Sync() error {
	if d.dials.noSync.Load() {
		return syscall.EIO
	}
	return d.file.Sync()
}

func (d *badDisk) Truncate(n int64) error {
	if d.dials.noCut.Load() {
		return syscall.EIO
	}
	return d.file.Truncate(n)
}

func withBadDisk(cfg *Config) *dials {
	d := new(dials)
	cfg.openFile = func(path string, flag int) (file, error) {
		f, err := openPrivate(path, flag)
		return &badDisk{f, d}, err
	}
	return d
}

// While the disk is full nothing is acknowledged, and when it is not any more
// the log goes on by itself.
func TestAuditDiskFull(t *testing.T) {
	cfg := testConfig(t)
	d := withBadDisk(&cfg)
	l := openLog(t, cfg)
	for range 3 {
		record(t, l, testRecord(0, "good"))
		for _, dial := range []*atomic.Bool{&d.full, &d.noSync} {
			dial.Store(true)
			if _, err := l.Record(t.Context(), testRecord(0, "lost")); !errors.Is(err, mandate.ErrUnavailable) {
				t.Fatalf("Record on a failing disk = %v, want ErrUnavailable", err)
			}
			d.noCut.Store(true)
			if _, err := l.Record(t.Context(), testRecord(0, "lost")); !errors.Is(err, mandate.ErrUnavailable) {
				t.Fatalf("Record on a failing disk = %v, want ErrUnavailable", err)
			}
			d.noCut.Store(false)
			dial.Store(false)
		}
	}
	record(t, l, testRecord(0, "good"))
	holds(t, cfg, l, 4)
	l.Close()
	holds(t, cfg, openLog(t, cfg), 4)
}

// A disk that has no place for a megabyte of zeros has it for records, to the
// last, and nothing else is left on it.
func TestAuditDiskNearlyFull(t *testing.T) {
	cfg := testConfig(t)
	d := withBadDisk(&cfg)
	l := openLog(t, cfg)
	d.limit.Store(10_000)
	written := int64(0)
	for ; ; written++ {
		_, err := l.Record(t.Context(), testRecord(0, "good"))
		if errors.Is(err, mandate.ErrUnavailable) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, data := lastSegment(t, cfg); bytes.IndexByte(data, 0) >= 0 {
			t.Fatal("there are zeros on the disk")
		}
	}
	if _, data := lastSegment(t, cfg); written < 5 || len(data) != 10_000 {
		t.Errorf("%d records on %d bytes", written, len(data))
	}
	d.limit.Store(0)
	record(t, l, testRecord(0, "good"))
	holds(t, cfg, l, written+1)
	l.Close()
	holds(t, cfg, openLog(t, cfg), written+1)
}

// holds verifies an export of the log, which has as many records.
func holds(t *testing.T, cfg Config, l *Log, records int64) {
	t.Helper()
	if got := verify(t, export(t, l, Export{Whole: true}), Verification{Key: cfg.Public}); !got.OK || got.Records != records {
		t.Errorf("got %+v, want %d records", got, records)
	}
}

// Through any number of faults, what was acknowledged is in the log once, with
// the leaf hash of its receipt, and nothing is there twice.
func TestAuditRandomFaults(t *testing.T) {
	cfg := testConfig(t)
	d := withBadDisk(&cfg)
	l := openLog(t, cfg)
	l.store.(*fileStore).rotate = 20_000
	all := newLedger()
	for i := range *faults {
		dial := []*atomic.Bool{&d.full, &d.noSync, &d.noCut}[rand.IntN(3)]
		all.during(t, l, i, func() {
			dial.Store(true)
			time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
			dial.Store(false)
		})
		if i%25 == 24 {
			l.Close()
			l = openLog(t, cfg)
			l.store.(*fileStore).rotate = 20_000
		}
	}
	all.check(t, cfg, l)
}

// The same with connections to PostgreSQL that are cut.
func TestAuditRandomCuts(t *testing.T) {
	cfg := pgConfig(t)
	l := openLog(t, cfg)
	all := newLedger()
	for i := range max(2, *faults/20) {
		all.during(t, l, i, func() {
			time.Sleep(time.Duration(rand.IntN(5)) * time.Millisecond)
			pgtest.Shared(t).Exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE '%audit_%'`)
		})
	}
	all.check(t, cfg, l)
}

// A ledger has what was acknowledged.
type ledger struct {
	mu       sync.Mutex
	receipts map[string]mandate.Receipt // by detail
	lost     int
}

func newLedger() *ledger { return &ledger{receipts: make(map[string]mandate.Receipt)} }

// during writes records while a fault happens, and one when it is over.
func (a *ledger) during(t *testing.T, l *Log, round int, fault func()) {
	t.Helper()
	var group sync.WaitGroup
	for w := range 4 {
		group.Go(func() {
			for i := range 3 {
				a.record(t, l, w, fmt.Sprintf("%d-%d-%d", round, w, i))
			}
		})
	}
	fault()
	group.Wait()
	detail := fmt.Sprintf("%d after", round)
	for deadline := time.Now().Add(20 * time.Second); ; {
		if a.record(t, l, 0, detail) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the log does not recover")
		}
		detail += " again" // whether it was written is not known
	}
}

func (a *ledger) record(t *testing.T, l *Log, partner int, detail string) bool {
	r, err := l.Record(t.Context(), testRecord(partner, detail))
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		if !errors.Is(err, mandate.ErrUnavailable) {
			t.Errorf("got %v, want ErrUnavailable", err)
		}
		a.lost++
		return false
	}
	a.receipts[detail] = r
	return true
}

func (a *ledger) check(t *testing.T, cfg Config, l *Log) {
	t.Helper()
	v := Verification{Key: cfg.Public}
	for _, r := range a.receipts {
		v.Receipts = append(v.Receipts, r)
	}
	got := verify(t, export(t, l, Export{Whole: true}), v)
	if !got.OK {
		t.Errorf("got %+v", got)
	}
	count := make(map[string]int)
	for e, err := range l.entries(t.Context(), 0, l.Count()) {
		if err != nil {
			t.Fatal(err)
		}
		count[e.Detail]++
		if count[e.Detail] > 1 {
			t.Errorf("%q is there twice", e.Detail)
		}
	}
	t.Logf("%d acknowledged, %d not, %d in the log", len(a.receipts), a.lost, got.Records)
}

// PostgreSQL is stopped, and comes back.
func TestAuditDatabaseGone(t *testing.T) {
	cluster := pgtest.Start(t)
	signer, public, _ := signing(t)
	cfg := Config{DB: openPG(t, cluster.Database(t)), Keys: &plainWrapper{}, Signer: signer, Public: public, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	l := openLog(t, cfg)
	record(t, l, testRecord(0, "before"))
	cluster.Stop(t)
	if _, err := l.Record(t.Context(), testRecord(0, "gone")); !errors.Is(err, mandate.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	cluster.StartAgain(t)
	for deadline := time.Now().Add(20 * time.Second); ; {
		if _, err := l.Record(t.Context(), testRecord(0, "after")); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	if got := verify(t, export(t, l, Export{Whole: true}), Verification{Key: public}); !got.OK {
		t.Errorf("got %+v", got)
	}
}

// Without the row that says where the log ends, or the one that says what
// epoch it is, nothing is acknowledged.
func TestAuditRowsGone(t *testing.T) {
	cfg := pgConfig(t)
	l := openLog(t, cfg)
	record(t, l, testRecord(0, "before"))
	for _, table := range []string{"head", "audit_end"} {
		if _, err := cfg.DB.Exec(t.Context(), `ALTER TABLE `+table+` RENAME TO kept`); err != nil {
			t.Fatal(err)
		}
		if _, err := cfg.DB.Exec(t.Context(), `CREATE TABLE `+table+` (LIKE kept)`); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Record(t.Context(), testRecord(0, "lost")); !errors.Is(err, mandate.ErrUnavailable) {
			t.Errorf("%s: got %v, want ErrUnavailable", table, err)
		}
		for _, query := range []string{`DROP TABLE ` + table, `ALTER TABLE kept RENAME TO ` + table} {
			if _, err := cfg.DB.Exec(t.Context(), query); err != nil {
				t.Fatal(err)
			}
		}
	}
	record(t, l, testRecord(0, "after"))
	holds(t, cfg, l, 2)
}

// An append waits for whoever has the end of the log or changes the epoch, and
// is not overtaken: it locks both when it reads them.
func TestAuditLocks(t *testing.T) {
	cfg := pgConfig(t)
	l := openLog(t, cfg)
	record(t, l, testRecord(0, "before"))
	for _, table := range []string{"audit_end", "head"} {
		done := make(chan error, 1)
		err := cfg.DB.Tx(t.Context(), func(tx *database.Tx) error {
			if _, err := tx.Exec(t.Context(), `SELECT epoch FROM `+table+` FOR UPDATE`); err != nil {
				return err
			}
			go func() {
				_, err := l.Record(t.Context(), testRecord(0, "waits"))
				done <- err
			}()
			query := ""
			for query == "" && len(done) == 0 { // in another transaction, because one sees the activity as it was at first
				err := cfg.DB.QueryRow(t.Context(), `SELECT coalesce(max(query), '') FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&query)
				if err != nil {
					return err
				}
			}
			if !strings.Contains(query, " FROM "+table+" FOR ") {
				t.Errorf("%s: %q waits, and not what reads it", table, query)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", table, err)
		}
		if err := <-done; err != nil {
			t.Errorf("%s: %v", table, err)
		}
	}
	holds(t, cfg, l, 3)
}

const childDir = "MANDATE_AUDIT_CHILD"

// TestMain is the process that is killed, if it is asked to be that.
func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir)
	}
	flag.Parse()
	os.Exit(m.Run())
}

// child records for ever, and prints what was acknowledged.
func child(dir string) {
	signer, public, err := ReadKey(filepath.Join(dir, "key"))
	if err != nil {
		panic(err)
	}
	db, err := openPlainDB(filepath.Join(dir, "db"))
	if err != nil {
		panic(err)
	}
	l, err := Open(noTest, Config{Dir: filepath.Join(dir, "audit"), DB: db, Keys: &plainWrapper{}, Signer: signer, Public: public})
	if err != nil {
		panic(err)
	}
	l.store.(*fileStore).rotate = 30_000
	go l.Run(noTest)
	var mu sync.Mutex
	out := json.NewEncoder(os.Stdout)
	for w := range 16 {
		go func() {
			for i := 0; ; i++ {
				r, err := l.Record(noTest, testRecord(w%4, fmt.Sprintf("%d %d-%d", os.Getpid(), w, i)))
				if err != nil {
					panic(err)
				}
				mu.Lock()
				out.Encode(r)
				mu.Unlock()
			}
		}()
	}
	select {}
}

// A process is killed in the middle of its batches, again and again. Whatever
// it was told of is there, once; and what it was not told of is whole or not
// there.
func TestAuditKilled(t *testing.T) {
	dir := t.TempDir()
	if err := WriteKey(filepath.Join(dir, "key"), testOrigin); err != nil {
		t.Fatal(err)
	}
	v := Verification{}
	_, v.Key, _ = ReadKey(filepath.Join(dir, "key"))
	for range max(2, *faults/50) {
		v.Receipts = append(v.Receipts, killed(t, dir)...)
	}
	signer, public, err := ReadKey(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Dir: filepath.Join(dir, "audit"), DB: openDB(t, filepath.Join(dir, "db")), Keys: &plainWrapper{}, Signer: signer, Public: public}
	l := openLog(t, cfg)
	got := verify(t, export(t, l, Export{Whole: true}), v)
	if !got.OK || got.Records < int64(len(v.Receipts)) {
		t.Errorf("%+v with %d receipts", got, len(v.Receipts))
	}
	seen := make(map[string]bool)
	for e, err := range l.entries(t.Context(), 0, l.Count()) {
		if err != nil {
			t.Fatal(err)
		}
		if seen[e.Detail] {
			t.Errorf("%q is there twice", e.Detail)
		}
		seen[e.Detail] = true
	}
	t.Logf("%d acknowledged, %d in the log", len(v.Receipts), got.Records)
}

func killed(t *testing.T, dir string) (receipts []mandate.Receipt) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	after := 20 + rand.IntN(400)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var r mandate.Receipt
		if json.Unmarshal(lines.Bytes(), &r) != nil {
			break // cut off by the kill
		}
		if receipts = append(receipts, r); len(receipts) == after {
			cmd.Process.Kill()
		}
	}
	cmd.Wait()
	if len(receipts) < after {
		t.Fatalf("the process ended by itself: %s", stderr.String())
	}
	return receipts
}

// lastSegment returns the path and the content of the last segment.
func lastSegment(t *testing.T, cfg Config) (string, []byte) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(cfg.Dir, "*"+segmentSuffix))
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	slices.Sort(names)
	path := names[len(names)-1]
	return path, must(os.ReadFile(path))
}

// Behind the entries of the last segment are zeros, which are written once for
// many batches; none is left by a log that was closed, or in a segment that is
// full.
func TestAuditRoom(t *testing.T) {
	cfg := testConfig(t)
	l := openLog(t, cfg)
	l.store.(*fileStore).rotate = 3000
	fill(t, l, 2)
	_, before := lastSegment(t, cfg)
	fill(t, l, 1)
	_, after := lastSegment(t, cfg)
	if entries := bytes.TrimRight(after, "\x00"); len(before) != len(zeros) || len(after) != len(before) || bytes.IndexByte(entries, 0) >= 0 || bytes.Count(entries, []byte("\n")) != 3 {
		t.Errorf("a file of %d bytes, then %d, of which %d are entries", len(before), len(after), len(entries))
	}
	fill(t, l, 10)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(cfg.Dir, "*"+segmentSuffix))
	if err != nil || len(names) < 3 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		if data := must(os.ReadFile(name)); bytes.IndexByte(data, 0) >= 0 {
			t.Errorf("%s has zeros", name)
		}
	}
	holds(t, cfg, openLog(t, cfg), 13)
}

// Only the last segment may end in the middle of a batch, none may be missing,
// and no file of the log may be read by others: also where the state spares
// reading the segments before.
func TestAuditSegments(t *testing.T) {
	for what, harm := range map[string]func(names []string) error{
		"a zero":       func(names []string) error { return os.WriteFile(names[0], []byte("{\x00}\n"), 0o600) },
		"half a line":  func(names []string) error { return os.Truncate(names[0], 100) },
		"a line less":  func(names []string) error { return cutLine(names[1]) },
		"a line more":  func(names []string) error { return appendLine(names[0], []byte("{}")) },
		"one is gone":  func(names []string) error { return os.Remove(names[1]) },
		"the first is": func(names []string) error { return os.Remove(names[0]) },
		"all but the last are": func(names []string) error {
			for _, name := range names[:len(names)-1] {
				os.Remove(name)
			}
			return nil
		},
		"one too many": func(names []string) error {
			return os.WriteFile(filepath.Join(filepath.Dir(names[0]), fmt.Sprintf("%020d", 99)+segmentSuffix), nil, 0o600)
		},
		"others read":  func(names []string) error { return os.Chmod(names[0], 0o640) },
		"not a file":   func(names []string) error { return errors.Join(os.Remove(names[0]), os.Mkdir(names[0], 0o700)) },
		"another name": func(names []string) error { return os.Rename(names[0], filepath.Dir(names[0])+"/first"+segmentSuffix) },
	} {
		for _, state := range []bool{true, false} {
			cfg, names := segmented(t)
			if !state {
				os.Remove(filepath.Join(cfg.Dir, "state")) // all of it is read
			}
			if err := harm(names); err != nil {
				t.Fatal(err)
			}
			if l, err := Open(t.Context(), cfg); err == nil {
				l.Close()
				t.Errorf("%s, with the state %v: the log was opened", what, state)
			}
		}
	}
}

// segmented returns a log of several segments with 312 records, of which the
// first have a tile; it was closed.
func segmented(t *testing.T) (Config, []string) {
	t.Helper()
	cfg := testConfig(t)
	l := openLog(t, cfg)
	l.store.(*fileStore).rotate = 2000
	var group sync.WaitGroup
	for range 300 {
		group.Go(func() { record(t, l, testRecord(0, "one of many")) })
	}
	group.Wait()
	fill(t, l, 12)
	must(l.Checkpoint(t.Context()))
	l.Close()
	names := must(segmentFiles(cfg.Dir))
	if len(names) < 3 {
		t.Fatal(names)
	}
	return cfg, names
}

// cutLine takes the last line out of a file.
func cutLine(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.Truncate(path, int64(bytes.LastIndexByte(data[:len(data)-1], '\n')+1))
}

// Files that can be made again are, when they are gone or do not fit the
// segments, and no checkpoint is signed with what was in them.
func TestAuditMadeAnew(t *testing.T) {
	for _, name := range []string{"state", "leaves", "tiles"} {
		for what, harm := range map[string]func(path string) error{
			"gone":  os.Remove,
			"empty": func(path string) error { return os.WriteFile(path, nil, 0o600) },
			"other": func(path string) error {
				data := must(os.ReadFile(path))
				data[min(len(data)-1, 290*leafRow)] ^= 1
				return os.WriteFile(path, data, 0o600)
			},
		} {
			cfg, _ := segmented(t)
			if err := harm(filepath.Join(cfg.Dir, name)); err != nil {
				t.Fatal(err)
			}
			l := openLog(t, cfg)
			fill(t, l, 1)
			if _, err := l.Checkpoint(t.Context()); err != nil {
				t.Errorf("%s, %s: %v", name, what, err)
			}
			holds(t, cfg, l, 313)
		}
	}
	cfg, _ := segmented(t)
	state := filepath.Join(cfg.Dir, "state")
	var v saved
	if err := json.Unmarshal(must(os.ReadFile(state)), &v); err != nil {
		t.Fatal(err)
	}
	v.Front[0] ^= 1
	if err := os.WriteFile(state, must(json.Marshal(v)), 0o600); err != nil {
		t.Fatal(err)
	}
	l := openLog(t, cfg)
	fill(t, l, 1)
	if _, err := l.Checkpoint(t.Context()); err != nil {
		t.Error(err)
	}
	holds(t, cfg, l, 313)
}

// What the file of leaves says wrongly of a record under a tile is not known at
// the start; whoever reads that record is told what to do, and it helps.
func TestAuditMisplaced(t *testing.T) {
	for what, move := range map[string]func(offset uint64) uint64{
		"negative":           func(uint64) uint64 { return 1 << 63 },
		"behind the segment": func(uint64) uint64 { return 1 << 40 },
		"in another line":    func(uint64) uint64 { return 1 },
		"too early":          func(offset uint64) uint64 { return offset - 5 },
		"too late":           func(offset uint64) uint64 { return offset + 5 },
	} {
		cfg, _ := segmented(t)
		leaves := filepath.Join(cfg.Dir, "leaves")
		data := must(os.ReadFile(leaves))
		offset := data[7*leafRow+tlog.HashSize : 8*leafRow]
		binary.BigEndian.PutUint64(offset, move(binary.BigEndian.Uint64(offset)))
		if err := os.WriteFile(leaves, data, 0o600); err != nil {
			t.Fatal(err)
		}
		l := openLog(t, cfg)
		for _, index := range []int64{6, 7} { // up to there, and from there
			if what == "too late" && index == 7 {
				continue // it is the end of a line, and no record
			}
			if _, err := l.store.read(t.Context(), index, 1); err == nil || !strings.Contains(err.Error(), leaves) {
				t.Errorf("%s: record %d: got %v, want what to do", what, index, err)
			}
		}
		l.Close()
		if err := errors.Join(os.Remove(leaves), os.Remove(filepath.Join(cfg.Dir, "state"))); err != nil {
			t.Fatal(err)
		}
		holds(t, cfg, openLog(t, cfg), 312)
	}
}

// A segment that could not be begun is not there at the next start, when the
// one before has gone on.
func TestAuditSegmentNotBegun(t *testing.T) {
	cfg := testConfig(t)
	l := openLog(t, cfg)
	s := l.store.(*fileStore)
	s.rotate, s.syncDir = 1000, func(string) error { return syscall.EMFILE }
	fill(t, l, 4)
	if names := must(segmentFiles(cfg.Dir)); len(names) != 1 {
		t.Errorf("there are %v", names)
	}
	s.syncDir = syncDir
	fill(t, l, 4)
	if names := must(segmentFiles(cfg.Dir)); len(names) < 3 {
		t.Errorf("there are %v", names)
	}
	l.Close()
	holds(t, cfg, openLog(t, cfg), 8)
}

// A directory is a name and not a pattern.
func TestAuditDirectoryName(t *testing.T) {
	cfg := testConfig(t)
	cfg.Dir = filepath.Join(t.TempDir(), "[a]*?")
	l := openLog(t, cfg)
	fill(t, l, 2)
	l.Close()
	holds(t, cfg, openLog(t, cfg), 2)
	n := 0
	for _, err := range Offline(cfg.Dir) {
		if n++; err != nil {
			t.Fatal(err)
		}
	}
	if n != 2 {
		t.Errorf("%d records offline, want 2", n)
	}
}

// A batch that failed in its segment leaves nothing behind the next one, which
// is shorter; and while that cannot be cut off nothing is acknowledged.
func TestAuditTornBatch(t *testing.T) {
	cfg := testConfig(t)
	d := new(dials)
	cfg.openFile = func(path string, flag int) (file, error) {
		f, err := openPrivate(path, flag)
		if err != nil || !strings.HasSuffix(path, segmentSuffix) {
			return f, err
		}
		return &badDisk{f, d}, nil
	}
	l := openLog(t, cfg)
	record(t, l, testRecord(0, "good"))
	refused := func(detail string) {
		t.Helper()
		if _, err := l.Record(t.Context(), testRecord(0, detail)); !errors.Is(err, mandate.ErrUnavailable) {
			t.Errorf("got %v, want ErrUnavailable", err)
		}
	}
	d.full.Store(true)
	refused(strings.Repeat("lost ", 500))
	d.full.Store(false)
	d.noCut.Store(true)
	refused("not yet")
	d.noCut.Store(false)
	record(t, l, testRecord(0, "good"))
	if _, data := lastSegment(t, cfg); bytes.Contains(data, []byte("lost")) || bytes.Count(data, []byte("\n")) != 2 {
		t.Errorf("the segment has %.3000q", data)
	}
	holds(t, cfg, l, 2)
}

// Of a batch that was under way when the power failed, any part may have
// reached the disk, and zeros are where the rest is not. What is whole at its
// beginning counts, nothing behind the first zero does, and the next batch
// takes its place.
func TestAuditHole(t *testing.T) {
	cfg := testConfig(t)
	l := openLog(t, cfg)
	fill(t, l, 4)
	l.Close()
	path, whole := lastSegment(t, cfg)
	lines := bytes.SplitAfter(whole, []byte("\n"))
	clear(lines[2][100:200])
	if err := os.WriteFile(path, append(whole, make([]byte, 5000)...), 0o600); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, err := range Offline(cfg.Dir) {
		if n++; err != nil {
			t.Error(err)
		}
	}
	l = openLog(t, cfg)
	if l.Count() != 2 || n != 2 {
		t.Fatalf("%d records, and %d of a log that is not open; want 2", l.Count(), n)
	}
	fill(t, l, 3)
	holds(t, cfg, l, 5)
	l.Close()
	holds(t, cfg, openLog(t, cfg), 5)
}

// A zero in a record that a checkpoint speaks of is something else: the log
// does not open, and everything stays as it is.
func TestTamperZero(t *testing.T) {
	cfg := testConfig(t)
	l := openLog(t, cfg)
	fill(t, l, 4)
	if _, err := l.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.Close()
	path, data := lastSegment(t, cfg)
	data[len(data)/2] = 0
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), cfg); !errors.Is(err, ErrChanged) {
		t.Errorf("got error %v, want %v", err, ErrChanged)
	}
	if _, now := lastSegment(t, cfg); !bytes.Equal(now, data) {
		t.Error("the segment was changed")
	}
}

// A watchedFile tells of what is read.
type watchedFile struct {
	file
	told func()
}

func (f *watchedFile) ReadAt(p []byte, off int64) (int, error) {
	f.told()
	return f.file.ReadAt(p, off)
}

// While entries are read no segment takes the place of another, and while one
// does nobody reads: an export that is made meanwhile would not hold.
func TestAuditReadWhileDropping(t *testing.T) {
	cfg := testConfig(t)
	var l *Log
	told := func() {}
	cfg.openFile = func(path string, flag int) (file, error) {
		f, err := openPrivate(path, flag)
		if err == nil && strings.HasSuffix(path, segmentSuffix) {
			if l != nil && path == filepath.Join(cfg.Dir, fmt.Sprintf("%020d", 0)+segmentSuffix) && l.store.(*fileStore).swap.TryRLock() {
				t.Error("entries could be read while a segment is replaced")
			}
			f = &watchedFile{f, func() { told() }}
		}
		return f, err
	}
	l = openLog(t, cfg)
	l.store.(*fileStore).rotate = 2000
	fill(t, l, 9)
	reads := 0
	told = func() {
		if reads++; l.store.(*fileStore).swap.TryLock() {
			l.store.(*fileStore).swap.Unlock()
			t.Error("a segment could be replaced while entries are read")
		}
	}
	if n, err := l.Drop(t.Context(), time.Now().Add(time.Hour)); err != nil || n == 0 || reads == 0 {
		t.Errorf("dropped %d with %d reads, %v", n, reads, err)
	}
	holds(t, cfg, l, 9)
}
