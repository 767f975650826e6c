package audit

import (
	"bytes"
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/mandate-sam/mandate"
)

// csvHead are the columns of a CSV export.
var csvHead = []string{"index", "time", "kind", "partner", "chain", "seq", "caller", "use", "tenant", "audience", "purpose", "ticket", "rule", "policy", "reason",
	"detail", "asked", "granted", "generation", "expires", "fingerprint", "uti", "correlation", "request", "address", "user", "epoch", "leaf", "erased",
	"application", "more"}

// WriteCSV writes what a query finds, the newest first, for people with a
// spreadsheet. It proves nothing: [Log.Export] does.
func (l *Log) WriteCSV(ctx context.Context, to io.Writer, q Query) error {
	w := csv.NewWriter(to)
	w.Write(csvHead) // its error comes back from Flush
	for e, err := range l.Each(ctx, q) {
		if err != nil {
			return err
		}
		if err := w.Write(csvRow(&e)); err != nil {
			return fmt.Errorf("export: %w", err)
		}
	}
	w.Flush()
	return w.Error()
}

func csvRow(e *Entry) []string {
	r := &e.Record
	user, expires, tenant := "", "", ""
	if r.User != nil {
		user = r.User.Object.String()
	}
	if !r.Expires.IsZero() {
		expires = r.Expires.UTC().Format(time.RFC3339)
	}
	if !r.Tenant.IsZero() {
		tenant = r.Tenant.String()
	}
	application := ""
	if r.Grant != nil {
		application = r.Grant.Application.String()
	}
	row := []string{strconv.FormatInt(e.Index, 10), r.Time.UTC().Format(time.RFC3339Nano), r.Kind, r.Partner, e.Chain, strconv.FormatInt(e.Seq, 10), string(r.Caller),
		string(r.Use), tenant, string(r.Audience), r.Purpose, r.Ticket, r.Rule, r.Policy, r.Reason, r.Detail, strings.Join(r.Asked, " "), strings.Join(r.Granted, " "),
		strconv.FormatInt(r.Generation, 10), expires, r.Fingerprint, r.UTI, r.Correlation, r.Request, r.Address, user, strconv.FormatInt(r.Epoch, 10), e.Leaf, strconv.FormatBool(e.Erased),
		application, more(e)}
	for i, s := range row {
		row[i] = harmless(s)
	}
	return row
}

// more returns as JSON what has no column of its own.
func more(e *Entry) string {
	rest := fields(e, append(csvHead, "grant")...)
	if len(rest) == 0 {
		return ""
	}
	b, _ := json.Marshal(rest) // was JSON a moment ago
	return string(b)
}

// harmless returns s so that neither a terminal nor a spreadsheet does
// anything with it: control and format characters are written out, and what
// would be a formula gets an apostrophe.
func harmless(s string) string {
	var b strings.Builder
	for _, r := range s {
		if acts(r) || r == unicode.ReplacementChar {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	s = b.String()
	if t := strings.TrimLeft(s, " '\""); t != "" && strings.ContainsAny(t[:1], "=+-@|%") {
		return "'" + s
	}
	return s
}

// escaped returns JSON in which what a terminal or a page would act on is
// written out, which changes nothing of what it means.
func escaped(b []byte) []byte {
	if !bytes.ContainsFunc(b, acts) {
		return b
	}
	var out []byte
	for _, r := range string(b) {
		switch {
		case !acts(r):
			out = utf8.AppendRune(out, r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return out
}

// acts reports whether r is not seen, but does something to what is.
func acts(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029'
}

// An ocsfEvent is an event of the Open Cybersecurity Schema Framework, 1.4:
// Authorize Session for tokens, where the user is the caller who gets the
// privileges, and API Activity for all else.
type ocsfEvent struct {
	Activity   int            `json:"activity_id"`
	Named      string         `json:"activity_name"`
	Category   int            `json:"category_uid"`
	Class      int            `json:"class_uid"`
	Type       int            `json:"type_uid"`
	Severity   int            `json:"severity_id"`
	Status     int            `json:"status_id"`
	Detail     string         `json:"status_detail,omitempty"`
	Time       int64          `json:"time"`
	Metadata   ocsfMetadata   `json:"metadata"`
	Actor      ocsfActor      `json:"actor"`
	User       *ocsfUser      `json:"user,omitempty"`
	Source     *ocsfEndpoint  `json:"src_endpoint,omitempty"`
	API        *ocsfAPI       `json:"api,omitempty"`
	Privileges []string       `json:"privileges,omitempty"`
	Unmapped   map[string]any `json:"unmapped,omitempty"`
}

type (
	ocsfMetadata struct {
		Version  string      `json:"version"`
		Product  ocsfProduct `json:"product"`
		UID      string      `json:"uid"`
		Sequence int64       `json:"sequence"`
		Original string      `json:"event_code"`
	}
	ocsfProduct struct {
		Name   string `json:"name"`
		Vendor string `json:"vendor_name"`
	}
	ocsfActor struct {
		App  string    `json:"app_name"`
		User *ocsfUser `json:"user,omitempty"`
	}
	ocsfUser struct {
		UID  string `json:"uid"`
		Type int    `json:"type_id"` // 1: a person, 3: a system
	}
	ocsfEndpoint struct {
		IP   string `json:"ip,omitempty"`
		Name string `json:"name,omitempty"`
	}
	ocsfAPI struct {
		Operation string `json:"operation"`
	}
)

// WriteOCSF writes what a query finds, the newest first, one event a line.
func (l *Log) WriteOCSF(ctx context.Context, to io.Writer, q Query) error {
	w := newLineWriter(to)
	for e, err := range l.Each(ctx, q) {
		if err != nil {
			return err
		}
		b, err := json.Marshal(ocsf(&e))
		if err != nil {
			return fmt.Errorf("export: %w", err)
		}
		if w.raw(escaped(b)); w.err != nil {
			break
		}
	}
	return w.end()
}

func ocsf(e *Entry) *ocsfEvent {
	r := &e.Record
	v := &ocsfEvent{
		Activity: 99, Named: r.Kind, Category: 6, Class: 6003, Severity: 1, Status: 1, Detail: r.Reason, Time: r.Time.UnixMilli(),
		Metadata: ocsfMetadata{"1.4.0", ocsfProduct{"Mandate", "Mandate"}, e.Leaf, e.Index, r.Kind},
		Actor:    ocsfActor{App: string(r.Caller)}, Source: &ocsfEndpoint{IP: r.Address}, Privileges: r.Granted,
	}
	switch r.Kind {
	case mandate.KindIssued, mandate.KindDecided, mandate.KindRefreshed:
		v.Category, v.Class, v.Activity, v.Named = 3, 3003, 1, "Assign Privileges"
		v.User = &ocsfUser{string(r.Caller), 3}
	case mandate.KindDenied, mandate.KindRefused, mandate.KindFailed:
		v.Status, v.Severity = 2, 2
	}
	v.Type = v.Class*100 + v.Activity
	if v.Class == 6003 || r.Use == mandate.UseCall {
		v.API = &ocsfAPI{cmp.Or(r.Detail, string(r.Use), r.Kind)}
	}
	if r.User != nil {
		v.Actor.User = &ocsfUser{r.User.Object.String(), 1}
	}
	if r.Address == "" {
		v.Source.Name = "local"
	}
	v.Unmapped = fields(e, "index", "leaf", "time", "kind", "caller", "reason", "address", "user", "granted")
	return v
}

// fields returns what is in a record but for what is named.
func fields(e *Entry, but ...string) map[string]any {
	var all map[string]any
	b, err := json.Marshal(e)
	if err != nil || json.Unmarshal(b, &all) != nil {
		return nil
	}
	for _, name := range but {
		delete(all, name)
	}
	return all
}
