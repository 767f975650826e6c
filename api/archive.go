package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/audit"
	"github.com/mandate-sam/mandate/internal/web"
)

// An Archive is the audit log as it is searched, exported and tidied;
// [audit.Log] is one.
type Archive interface {
	// Search returns records, the newest first.
	Search(context.Context, audit.Query) ([]audit.Entry, error)

	// Each returns all records that a query finds, the newest first.
	Each(context.Context, audit.Query) iter.Seq2[audit.Entry, error]

	// Report counts what a query finds by who used it for what.
	Report(context.Context, audit.Query) ([]audit.Usage, error)

	// Export writes what [audit.Verify] takes; PersonalKeys what opens its
	// personal data.
	Export(context.Context, io.Writer, audit.Export) error
	PersonalKeys(ctx context.Context, to io.Writer, chain string) error

	// WriteCSV and WriteOCSF write what proves nothing, for other programs.
	WriteCSV(context.Context, io.Writer, audit.Query) error
	WriteOCSF(context.Context, io.Writer, audit.Query) error

	// Checkpoint returns the latest signed checkpoint; Key what verifies it.
	Checkpoint(context.Context) ([]byte, error)
	Key() string
	Witnesses() []audit.WitnessStatus

	// Erase destroys the key of personal data of a partner and month.
	Erase(ctx context.Context, chain, month string) error

	// Drop removes the content of older records, and returns of how many.
	Drop(ctx context.Context, before time.Time) (int64, error)
}

// An AuditState says who vouches for the log.
type AuditState struct {
	Key        string                `json:"key"`
	Checkpoint string                `json:"checkpoint"` // signed
	Witnesses  []audit.WitnessStatus `json:"witnesses"`
}

// An EraseRequest is the body of POST /v1/audit/erase.
type EraseRequest struct {
	Partner string `json:"partner"`
	Month   string `json:"month"` // such as 2026-11
}

// A DropRequest is the body of POST /v1/audit/drop.
type DropRequest struct {
	Before time.Time `json:"before"`
}

// A Tidied is what came of either.
type Tidied struct {
	Records int64           `json:"records"` // whose content was dropped
	Record  mandate.Receipt `json:"record"`
}

type usageAnswer struct {
	Uses []audit.Usage `json:"uses"`
}

type entriesAnswer struct {
	Records []audit.Entry `json:"records"`
}

// withArchive makes an operation of one that needs the archive.
func withArchive(do func(*Server, Archive, http.ResponseWriter, *http.Request, mandate.CallerID) error) action {
	return func(s *Server, w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
		if s.cfg.Archive == nil {
			return fmt.Errorf("%w: this server has no archive", mandate.ErrNotFound)
		}
		return do(s, s.cfg.Archive, w, r, caller)
	}
}

// archiveRoutes are a part of the operator's.
var archiveRoutes = []route{
	{"GET", "/v1/audit/search", withArchive((*Server).searchAudit)},
	{"GET", "/v1/audit/report", withArchive((*Server).reportAudit)},
	{"GET", "/v1/audit/export", withArchive((*Server).exportAudit)},
	{"GET", "/v1/partners/{partner}/usage", withArchive((*Server).partnerUsage)},
	{"GET", "/v1/audit/state", withArchive((*Server).auditState)},
	{"POST", "/v1/audit/erase", withArchive((*Server).eraseAudit)},
	{"POST", "/v1/audit/drop", withArchive((*Server).dropAudit)},
}

func (s *Server) searchAudit(a Archive, w http.ResponseWriter, r *http.Request, _ mandate.CallerID) error {
	x, err := s.parseArchive(r.URL.RawQuery)
	if err != nil {
		return err
	}
	found, err := a.Search(r.Context(), x.query)
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, entriesAnswer{append([]audit.Entry{}, found...)})
}

func (s *Server) reportAudit(a Archive, w http.ResponseWriter, r *http.Request, _ mandate.CallerID) error {
	x, err := s.parseArchive(r.URL.RawQuery)
	if err != nil {
		return err
	}
	uses, err := a.Report(r.Context(), x.query)
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, usageAnswer{append([]audit.Usage{}, uses...)})
}

// exportAudit answers with lines. A failure in the middle breaks the
// connection off, so that nobody takes half an export for a whole one.
func (s *Server) exportAudit(a Archive, w http.ResponseWriter, r *http.Request, _ mandate.CallerID) error {
	x, err := s.parseArchive(r.URL.RawQuery)
	if err != nil {
		return err
	}
	out := &exportWriter{w: w, form: x.form}
	switch x.form {
	case "csv":
		err = a.WriteCSV(r.Context(), out, x.query)
	case "ocsf":
		err = a.WriteOCSF(r.Context(), out, x.query)
	case "keys":
		err = a.PersonalKeys(r.Context(), out, x.query.Chain)
	default:
		err = a.Export(r.Context(), out, audit.Export{Chain: x.query.Chain, Whole: x.query.Chain == "", Since: x.since})
	}
	switch {
	case err != nil && out.stream != nil:
		s.cfg.Log.Error("an export broke off", "err", err)
		panic(http.ErrAbortHandler)
	case err == nil && out.stream == nil:
		out.begin()
	}
	return err
}

// An exportWriter begins the answer with its first bytes.
type exportWriter struct {
	w      http.ResponseWriter
	form   string
	stream *stream
}

func (e *exportWriter) begin() {
	if e.form == "csv" {
		e.w.Header().Set("Content-Disposition", `attachment; filename="audit.csv"`)
	}
	e.stream = newStream(e.w)
}

// Write implements [io.Writer].
func (e *exportWriter) Write(b []byte) (int, error) {
	if e.stream == nil {
		e.begin()
	}
	if err := e.stream.ctrl.SetWriteDeadline(time.Now().Add(streamTimeout)); err != nil {
		return 0, err
	}
	return e.w.Write(b)
}

func (s *Server) auditState(a Archive, w http.ResponseWriter, r *http.Request, _ mandate.CallerID) error {
	signed, err := a.Checkpoint(r.Context())
	if err != nil {
		return fmt.Errorf("%w: %w", mandate.ErrUnavailable, err)
	}
	return web.Write(w, http.StatusOK, AuditState{Key: a.Key(), Checkpoint: string(signed), Witnesses: append([]audit.WitnessStatus{}, a.Witnesses()...)})
}

func (s *Server) eraseAudit(a Archive, w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	in, err := web.Read[EraseRequest](w, r)
	if err != nil {
		return err
	}
	if !mandate.Name(in.Partner) {
		return mandate.Invalid("partner", "must be a partner's short name or tenant id")
	}
	p, err := s.cfg.Partners.Partner(in.Partner)
	if err != nil {
		return err
	}
	if _, err := time.Parse("2006-01", in.Month); err != nil || in.Month >= time.Now().UTC().Format("2006-01") {
		return mandate.Invalid("month", "must be a month that is over, such as 2026-10")
	}
	rec := mandate.Record{Caller: caller, Partner: p.Name, Grant: &p.Key, Detail: "erase personal data of " + in.Month}
	receipt, err := mandate.Change(r.Context(), s.cfg.Recorder, s.cfg.Epoch, rec, func() error {
		return a.Erase(r.Context(), audit.Chain(p.Key.Cloud, p.Key.Partner), in.Month)
	})
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, Tidied{Record: receipt})
}

func (s *Server) dropAudit(a Archive, w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	in, err := web.Read[DropRequest](w, r)
	if err != nil {
		return err
	}
	const least = 24 * time.Hour
	if in.Before.IsZero() || time.Since(in.Before) < least {
		return mandate.Invalid("before", "must be a time at least a day ago")
	}
	var out Tidied
	rec := mandate.Record{Caller: caller, Detail: "drop records before " + in.Before.UTC().Format(time.RFC3339)}
	out.Record, err = mandate.Change(r.Context(), s.cfg.Recorder, s.cfg.Epoch, rec, func() (err error) {
		out.Records, err = a.Drop(r.Context(), in.Before)
		return err
	})
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, out)
}

// An archiveQuery is what the parameters say.
type archiveQuery struct {
	query audit.Query
	form  string
	since []int64
}

// maxArchive bounds the text of one parameter, in bytes.
const maxArchive = 256

// parseArchive reads the parameters of a search or an export.
func (s *Server) parseArchive(raw string) (x archiveQuery, err error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return x, mandate.Invalid("query", "is malformed")
	}
	q := &x.query
	texts := map[string]*string{
		"caller": &q.Caller, "audience": &q.Audience, "purpose": &q.Purpose, "request": &q.Request,
		"uti": &q.UTI, "correlation": &q.Correlation, "ticket": &q.Ticket,
	}
	for name, all := range values {
		v := all[0]
		if len(all) != 1 || len(v) > maxArchive {
			return x, mandate.Invalid(name, "is given twice, or is too long")
		}
		if into := texts[name]; into != nil {
			*into = v
			continue
		}
		if name == "partner" {
			p, err := s.cfg.Partners.Partner(v)
			if err != nil {
				return x, err
			}
			q.Chain = audit.Chain(p.Key.Cloud, p.Key.Partner)
			continue
		}
		p, ok := archiveParameters[name]
		if !ok {
			return x, mandate.Invalid(name, "is not a parameter of this request")
		}
		if p.read(&x, v) != nil {
			return x, mandate.Invalid(name, "%.60q is not %s", v, p.want)
		}
	}
	return x, nil
}

// recordKinds are those of records, exportForms those of exports.
var (
	recordKinds = []string{mandate.KindIssued, mandate.KindDenied, mandate.KindFailed, mandate.KindDecided, mandate.KindRefreshed,
		mandate.KindConsented, mandate.KindStaged, mandate.KindRefused, mandate.KindChanged}
	exportForms = []string{"jsonl", "csv", "ocsf", "keys"}
)

// archiveParameters are those that have a form. What cannot be in any record
// is refused, so that a mistake does not look like an empty log.
var archiveParameters = map[string]struct {
	want string
	read func(*archiveQuery, string) error
}{
	"kind": {"one of " + strings.Join(recordKinds, ", "), func(x *archiveQuery, v string) error { return among(recordKinds, &x.query.Kind, v) }},
	"tenant": {"a tenant id", func(x *archiveQuery, v string) error {
		t, err := mandate.ParseTenantID(v)
		x.query.Tenant = t.String()
		return err
	}},
	"user": {"the object id of a user", func(x *archiveQuery, v string) error {
		o, err := mandate.ParseObjectID(v)
		x.query.Person = o.String()
		return err
	}},
	"fingerprint": {"a SHA-256 in hex", func(x *archiveQuery, v string) error {
		sum, err := hex.DecodeString(v)
		if x.query.Fingerprint = hex.EncodeToString(sum); len(sum) != sha256.Size {
			err = errNotWanted
		}
		return err
	}},
	"from": {aTime, func(x *archiveQuery, v string) (err error) {
		x.query.From, err = time.Parse(time.RFC3339, v)
		return err
	}},
	"to": {aTime, func(x *archiveQuery, v string) (err error) {
		x.query.To, err = time.Parse(time.RFC3339, v)
		return err
	}},
	"limit": {"a number from 1 to 1000", func(x *archiveQuery, v string) (err error) {
		if x.query.Limit, err = strconv.Atoi(v); x.query.Limit < 1 || x.query.Limit > 1000 {
			err = errNotWanted
		}
		return err
	}},
	"before": {"the number of a record, from 1 on", func(x *archiveQuery, v string) (err error) {
		if x.query.Before, err = strconv.ParseInt(v, 10, 64); x.query.Before < 1 {
			err = errNotWanted // there is none before the first, and 0 is no bound
		}
		return err
	}},
	"format": {"one of " + strings.Join(exportForms, ", "), func(x *archiveQuery, v string) error { return among(exportForms, &x.form, v) }},
	"since": {"the size of a checkpoint, or several with commas", func(x *archiveQuery, v string) (err error) {
		for word := range strings.SplitSeq(v, ",") {
			n, nerr := strconv.ParseInt(word, 10, 64)
			x.since, err = append(x.since, n), errors.Join(err, nerr)
		}
		return err
	}},
}

const aTime = "a time such as 2026-11-21T00:00:00Z"

var errNotWanted = errors.New("it is something else")

func among(words []string, into *string, v string) error {
	if *into = v; !slices.Contains(words, v) {
		return errNotWanted
	}
	return nil
}

// SearchAudit returns records that the parameters select, the newest first.
func (c *Client) SearchAudit(ctx context.Context, q url.Values) ([]audit.Entry, error) {
	a, err := exchange[entriesAnswer](ctx, c, "GET", "/v1/audit/search?"+q.Encode(), nil)
	return a.Records, err
}

// ReportAudit counts what the parameters select.
func (c *Client) ReportAudit(ctx context.Context, q url.Values) ([]audit.Usage, error) {
	a, err := exchange[usageAnswer](ctx, c, "GET", "/v1/audit/report?"+q.Encode(), nil)
	return a.Uses, err
}

// ExportAudit copies an export.
func (c *Client) ExportAudit(ctx context.Context, to io.Writer, q url.Values) error {
	resp, err := c.do(ctx, "GET", "/v1/audit/export?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return problem(resp)
	}
	if _, err := io.Copy(to, resp.Body); err != nil {
		return fmt.Errorf("%w: the export broke off: %w", ErrUnreachable, err)
	}
	return nil
}

// AuditState says who vouches for the log.
func (c *Client) AuditState(ctx context.Context) (AuditState, error) {
	return exchange[AuditState](ctx, c, "GET", "/v1/audit/state", nil)
}

// EraseAudit destroys the key of a partner's personal data of a month.
func (c *Client) EraseAudit(ctx context.Context, in EraseRequest) (Tidied, error) {
	return exchange[Tidied](ctx, c, "POST", "/v1/audit/erase", in)
}

// DropAudit removes the content of older records.
func (c *Client) DropAudit(ctx context.Context, in DropRequest) (Tidied, error) {
	return exchange[Tidied](ctx, c, "POST", "/v1/audit/drop", in)
}
