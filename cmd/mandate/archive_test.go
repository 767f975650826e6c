package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/note"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/audit"
	"github.com/mandate-sam/mandate/internal/database"
)

// clearKeys wraps nothing.
type clearKeys struct{}

func (clearKeys) Wrap(_ context.Context, plain []byte) (string, []byte, error) {
	return "clear", bytes.Clone(plain), nil
}

func (clearKeys) Unwrap(_ context.Context, _ string, wrapped []byte) ([]byte, error) {
	return bytes.Clone(wrapped), nil
}

// openArchive opens a real log with three records about two partners.
func openArchive() (_ *audit.Log, end func(), err error) {
	dir, err := os.MkdirTemp("", "archive")
	if err != nil {
		return nil, nil, err
	}
	ctx := context.Background()
	db, err := database.Open(ctx, database.Config{File: filepath.Join(dir, "db"), Schemas: []database.Schema{audit.Schema()}})
	if err != nil {
		return nil, nil, err
	}
	secret, public, err := audit.NewKey("log.test/audit")
	if err != nil {
		return nil, nil, err
	}
	l, err := audit.Open(ctx, audit.Config{Dir: filepath.Join(dir, "audit"), DB: db, Keys: clearKeys{}, Signer: must(note.NewSigner(secret)), Public: must(audit.ParseKey(public))})
	if err != nil {
		return nil, nil, err
	}
	for _, r := range []mandate.Record{
		{Kind: mandate.KindIssued, Caller: "billing", Use: mandate.UseToken, Partner: "contoso", Grant: &contoso.Key, Tenant: tenant, Audience: "https://graph.test", Purpose: "invoice", Ticket: "T-1"},
		{Kind: mandate.KindDenied, Caller: "desk", Use: mandate.UseCall, Partner: "contoso", Grant: &contoso.Key, Tenant: tenant, Audience: "https://graph.test", Purpose: "support", Detail: "=cmd|' /C calc'!A0"},
		{Kind: mandate.KindIssued, Caller: "billing", Use: mandate.UseToken, Partner: "fabrikam", Grant: &fabrikam.Key, Tenant: fabrikam.Key.Partner, Audience: "https://graph.test", Purpose: "invoice", Correlation: "c-1"},
	} {
		if _, err := l.Record(ctx, r); err != nil {
			return nil, nil, err
		}
	}
	return l, func() { errors.Join(l.Close(), db.Close(), os.RemoveAll(dir)) }, nil
}
