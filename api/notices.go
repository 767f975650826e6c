package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
	"github.com/mandate-sam/mandate/notify"
)

// Notices are what people were told; [notify.Outbox] has them.
type Notices interface {
	// List returns notices, the newest first, without their texts.
	List(context.Context, notify.Query) ([]notify.Notice, error)

	// Show returns one with its text and what became of each delivery, or an
	// error wrapping [mandate.ErrNotFound].
	Show(ctx context.Context, id string) (notify.Notice, error)

	// Retry delivers again what was given up, and hurries what waits.
	Retry(ctx context.Context, id string) error

	// Ways names how notices are delivered.
	Ways() []string
}

// A NoticeList is notices, the newest first.
type NoticeList struct {
	Notices []notify.Notice `json:"notices"`
	Ways    []string        `json:"ways"` // by which they are delivered; none if nothing is configured
}

// noticeRoutes are about what people were told, and who is.
var noticeRoutes = []route{
	{"GET", "/v1/notices", withNotices((*Server).listNotices)},
	{"GET", "/v1/notices/{id}", withNotices((*Server).showNotice)},
	{"POST", "/v1/notices/{id}/retry", withNotices((*Server).retryNotice)},
	{"GET", "/v1/partners/{partner}/contacts", withContacts((*Server).listContacts)},
	{"POST", "/v1/partners/{partner}/contacts", withContacts((*Server).addContact)},
	{"POST", "/v1/partners/{partner}/contacts/remove", withContacts((*Server).removeContact)},
}

// withNotices makes an operation of one that needs them.
func withNotices(do func(*Server, Notices, http.ResponseWriter, *http.Request, mandate.CallerID) error) action {
	return func(s *Server, w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
		if s.cfg.Notices == nil {
			return fmt.Errorf("%w: this server tells nobody", mandate.ErrNotFound)
		}
		return do(s, s.cfg.Notices, w, r, caller)
	}
}

// noticeStates are those that can be asked for.
var noticeStates = []string{notify.StateAnnounced, notify.StateWaiting, notify.StateDelivered, notify.StateFailed, notify.StateKept}

// maxNotices is how many are listed at once.
const maxNotices = 500

// listNotices is GET /v1/notices.
func (s *Server) listNotices(n Notices, w http.ResponseWriter, r *http.Request, _ mandate.CallerID) error {
	in := r.URL.Query()
	q := notify.Query{State: in.Get("state"), Partner: in.Get("partner"), Limit: 50}
	if q.State != "" && !slices.Contains(noticeStates, q.State) {
		return mandate.Invalid("state", "%.40q is none of %s", q.State, strings.Join(noticeStates, ", "))
	}
	if q.Partner != "" && !mandate.Name(q.Partner) {
		return mandate.Invalid("partner", "must be a partner's short name")
	}
	if text := in.Get("limit"); text != "" {
		limit, err := strconv.Atoi(text)
		if err != nil || limit < 1 || limit > maxNotices {
			return mandate.Invalid("limit", "must be from 1 to %d", maxNotices)
		}
		q.Limit = limit
	}
	all, err := n.List(r.Context(), q)
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, NoticeList{append([]notify.Notice{}, all...), append([]string{}, n.Ways()...)})
}

// showNotice is GET /v1/notices/{id}.
func (s *Server) showNotice(n Notices, w http.ResponseWriter, r *http.Request, _ mandate.CallerID) error {
	id, err := noticeID(r)
	if err != nil {
		return err
	}
	return writeNotice(w, r, n, id)
}

func writeNotice(w http.ResponseWriter, r *http.Request, n Notices, id string) error {
	out, err := n.Show(r.Context(), id)
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, out)
}

func noticeID(r *http.Request) (string, error) {
	id := r.PathValue("id")
	if !mandate.Name(id) {
		return "", mandate.Invalid("id", "must be the id of a notice")
	}
	return id, nil
}

// retryNotice is POST /v1/notices/{id}/retry.
func (s *Server) retryNotice(n Notices, w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	in, err := web.Read[ActRequest](w, r)
	if err != nil {
		return err
	}
	id, err := noticeID(r)
	if err != nil {
		return err
	}
	who, err := by(r, caller, in.Ticket)
	if err != nil {
		return err
	}
	rec := mandate.Record{Caller: who.Caller, Address: who.Address, Ticket: who.Ticket, Detail: "deliver notice " + id + " again"}
	if err := s.change(r.Context(), rec, func() error { return n.Retry(r.Context(), id) }); err != nil {
		return err
	}
	return writeNotice(w, r, n, id)
}

// Notices returns what people were told, the newest first.
func (c *Client) Notices(ctx context.Context, q notify.Query) (NoticeList, error) {
	v := url.Values{}
	for name, value := range map[string]string{"state": q.State, "partner": q.Partner} {
		if value != "" {
			v.Set(name, value)
		}
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	path := "/v1/notices"
	if len(v) > 0 {
		path += "?" + v.Encode()
	}
	return exchange[NoticeList](ctx, c, "GET", path, nil)
}

// Notice returns a notice with its text and what became of each delivery.
func (c *Client) Notice(ctx context.Context, id string) (notify.Notice, error) {
	return exchange[notify.Notice](ctx, c, "GET", "/v1/notices/"+url.PathEscape(id), nil)
}

// RetryNotice has a notice delivered again where that was given up.
func (c *Client) RetryNotice(ctx context.Context, id string, in ActRequest) (notify.Notice, error) {
	return exchange[notify.Notice](ctx, c, "POST", "/v1/notices/"+url.PathEscape(id)+"/retry", in)
}
