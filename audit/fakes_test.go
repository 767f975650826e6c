package audit

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/internal/pgtest"
)

// plainWrapper wraps nothing: what is in the database is the key.
type plainWrapper struct{ err error }

func (w *plainWrapper) Wrap(_ context.Context, plain []byte) (string, []byte, error) {
	return "plain", bytes.Clone(plain), w.err
}

func (w *plainWrapper) Unwrap(_ context.Context, _ string, wrapped []byte) ([]byte, error) {
	return bytes.Clone(wrapped), w.err
}

// epochAt is an epoch that a test sets.
type epochAt struct {
	now int64
	err error
}

func (e *epochAt) Epoch() (int64, error) { return e.now, e.err }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

const testOrigin = "log.test/audit"

// signing returns a new key of the log.
func signing(t testing.TB) (note.Signer, note.Verifier, string) {
	t.Helper()
	secret, public, err := NewKey(testOrigin)
	if err != nil {
		t.Fatal(err)
	}
	return must(note.NewSigner(secret)), must(ParseKey(public)), secret
}

// testConfig is a log in files, with everything in a temporary directory.
func testConfig(t testing.TB) Config {
	t.Helper()
	dir := t.TempDir()
	signer, public, _ := signing(t)
	return Config{
		Dir: filepath.Join(dir, "audit"), DB: openDB(t, filepath.Join(dir, "db")), Keys: &plainWrapper{}, Signer: signer, Public: public,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

func openDB(t testing.TB, file string) *database.DB {
	t.Helper()
	db, err := database.Open(t.Context(), database.Config{File: file, Schemas: []database.Schema{Schema()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// pgConfig is a log in a PostgreSQL database of its own.
func pgConfig(t testing.TB) Config {
	t.Helper()
	signer, public, _ := signing(t)
	return Config{
		DB: openPG(t, pgtest.Shared(t).Database(t)), Keys: &plainWrapper{}, Signer: signer, Public: public,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

func openPG(t testing.TB, url string) *database.DB {
	t.Helper()
	db, err := database.Open(t.Context(), database.Config{URL: url, Schemas: []database.Schema{Schema()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// engines runs a test with a log in files and with one in PostgreSQL.
func engines(t *testing.T, f func(t *testing.T, cfg Config)) {
	t.Run("files", func(t *testing.T) { f(t, testConfig(t)) })
	t.Run("PostgreSQL", func(t *testing.T) { f(t, pgConfig(t)) })
}

func openLog(t testing.TB, cfg Config) *Log {
	t.Helper()
	l, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// partnerKey is the n-th partner.
func partnerKey(n int) *mandate.GrantKey {
	return &mandate.GrantKey{
		Cloud: "test", Application: must(mandate.ParseAppID("aaaaaaaa-0000-0000-0000-00000000000a")),
		Partner: must(mandate.ParseTenantID(fmt.Sprintf("%08x-0000-0000-0000-000000000001", n+1))),
	}
}

func chainOfPartner(n int) string { return Chain("test", partnerKey(n).Partner) }

// testRecord is a record about the n-th partner.
func testRecord(n int, detail string) mandate.Record {
	return mandate.Record{
		Kind: mandate.KindIssued, Epoch: 1, Caller: "billing", Use: mandate.UseToken, Purpose: "invoice", Ticket: "T-" + detail, Address: "192.0.2.7",
		Grant: partnerKey(n), Tenant: partnerKey(n).Partner, Audience: "https://graph.test", Rule: "r", Policy: "p", Reason: "because <&>", Detail: detail,
		Fingerprint: "fp-" + detail, User: &mandate.Identity{Tenant: partnerKey(n).Partner, Object: must(mandate.ParseObjectID("dddddddd-0000-0000-0000-00000000000d"))},
	}
}

func record(t testing.TB, l *Log, r mandate.Record) mandate.Receipt {
	t.Helper()
	receipt, err := l.Record(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return receipt
}

// fill writes n records about three partners in turn.
func fill(t testing.TB, l *Log, n int) (receipts []mandate.Receipt) {
	t.Helper()
	for i := range n {
		receipts = append(receipts, record(t, l, testRecord(i%3, fmt.Sprint(i))))
	}
	return receipts
}

func export(t testing.TB, l *Log, x Export) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := l.Export(t.Context(), &b, x); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func verify(t testing.TB, data []byte, v Verification) Verdict {
	t.Helper()
	verdict, err := Verify(bytes.NewReader(data), v)
	if err != nil {
		t.Fatal(err)
	}
	return verdict
}

// noChange is a change of security state that changes nothing but the epoch.
func noChange(*database.Tx) error { return nil }

// noTest is the context of a process that is no test.
var noTest = context.Background()

func openPlainDB(file string) (*database.DB, error) {
	return database.Open(noTest, database.Config{File: file, Schemas: []database.Schema{Schema()}})
}
