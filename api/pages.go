package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

// maxPages is how many pages of one list are followed.
const maxPages = 1000

// maxContinuation is the longest continuation token that is sent back to
// Partner Center, in bytes.
const maxContinuation = 8 << 10

// A page is one page of a list, as Partner Center (items, links), Graph
// (value, @odata.nextLink) and ARM (value, nextLink) write it.
type page struct {
	Value     []json.RawMessage `json:"value"`
	Items     []json.RawMessage `json:"items"`
	ODataNext string            `json:"@odata.nextLink"`
	Next      string            `json:"nextLink"`
	Links     struct {
		Next *pageLink `json:"next"`
	} `json:"links"`
}

// A pageLink is Partner Center's way to say what to ask for next: a path
// below the version, and headers.
type pageLink struct {
	URI     string `json:"uri"`
	Method  string `json:"method"`
	Headers []struct {
		Key   string `json:"key"`
		Value string `json:"value"`
	} `json:"headers"`
}

// A pageLine is one line of a list that is followed. Each has exactly one of
// the fields; the last one has End or Error, and without such a line the list
// is not whole.
type pageLine struct {
	Item  json.RawMessage `json:"item,omitempty"`
	End   *pageEnd        `json:"end,omitempty"`
	Error *web.Problem    `json:"error,omitempty"`
}

type pageEnd struct {
	Pages int `json:"pages"`
	Items int `json:"items"`
}

// pages makes a call and follows its pages, each with a decision and a record
// of its own, so that a revocation ends the list between two of them. A first
// page that is no success is answered as a single call would be.
func (s *Server) pages(w http.ResponseWriter, r *http.Request, c *call) error {
	a, err := s.exchange(r.Context(), c)
	if err != nil {
		return err
	}
	if !a.ok() {
		return a.write(w)
	}
	p, err := parsePage(a.body)
	if err != nil {
		return err
	}
	a.note(w.Header())
	out := newStream(w)
	end, err := s.followPages(r, out, c, p)
	line := pageLine{End: end}
	if err != nil {
		problem := web.NewProblem(err)
		problem.RequestID = web.RequestID(r.Context())
		s.cfg.Log.InfoContext(r.Context(), "list broke off", "request_id", problem.RequestID, "err", err)
		line = pageLine{Error: &problem}
	}
	_ = out.value(line) // too late to tell anybody
	return nil
}

// followPages writes the items of p and of every page after it.
func (s *Server) followPages(r *http.Request, out *stream, c *call, p *page) (*pageEnd, error) {
	end := &pageEnd{}
	for {
		end.Pages++
		for _, item := range append(p.Value, p.Items...) {
			end.Items++
			if err := out.value(pageLine{Item: item}); err != nil {
				return nil, err
			}
		}
		if err := out.flush(); err != nil {
			return nil, err
		}
		next, err := c.next(p)
		if next == nil || err != nil {
			return end, err
		}
		if end.Pages == maxPages {
			return nil, fmt.Errorf("%w: %s has more than %d pages; ask for larger ones", mandate.ErrUpstream, c.alias, maxPages)
		}
		a, err := s.exchange(r.Context(), next)
		if err != nil {
			return nil, err
		}
		if !a.ok() {
			return nil, fmt.Errorf("%w: %s answered %d to page %d: %.300s", mandate.ErrUpstream, c.alias, a.status, end.Pages+1, a.body)
		}
		if p, err = parsePage(a.body); err != nil {
			return nil, err
		}
		c = next
	}
}

func parsePage(body []byte) (*page, error) {
	var p page
	err := json.Unmarshal(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")), &p)
	if err != nil || p.Value == nil && p.Items == nil {
		return nil, mandate.Invalid("all", "the answer is not a list: it has neither \"value\" nor \"items\"")
	}
	return &p, nil
}

// next returns the call for the page after p, or nil if p is the last. It
// goes to the same scheme, host and port, and stays below the first segment
// of the path, which is the API's version: whoever can write into a list must
// not get the token to where they like.
func (c *call) next(p *page) (*call, error) {
	n := *c
	link := p.ODataNext
	if link == "" {
		link = p.Next
	}
	if l := p.Links.Next; link == "" && l != nil && l.URI != "" {
		link = l.URI
		if strings.HasPrefix(link, "/") {
			link = c.target.prefix() + link
		}
		if err := n.continued(l); err != nil {
			return nil, err
		}
	}
	if link == "" {
		return nil, nil
	}
	t, err := parseTarget(c.endpoint.URL, link)
	if err != nil {
		return nil, fmt.Errorf("%w: link to the next page refused: %s", mandate.ErrUpstream, err)
	}
	if t.prefix() != c.target.prefix() {
		return nil, fmt.Errorf("%w: link to the next page refused: it leaves %s for %.80q", mandate.ErrUpstream, c.target.prefix(), t.path)
	}
	n.target = t
	return &n, nil
}

// continued takes over what a link of Partner Center's asks to be sent: the
// continuation token and no other header.
func (c *call) continued(l *pageLink) error {
	if l.Method != "" && !strings.EqualFold(l.Method, http.MethodGet) {
		return fmt.Errorf("%w: link to the next page refused: its method is %.20q", mandate.ErrUpstream, l.Method)
	}
	c.header = c.header.Clone()
	c.header.Del("MS-RequestId") // that one is for retries of the same page
	for _, h := range l.Headers {
		if !strings.EqualFold(h.Key, "MS-ContinuationToken") {
			continue
		}
		if len(h.Value) > maxContinuation || !printable(h.Value) {
			return fmt.Errorf("%w: link to the next page refused: its continuation token is malformed", mandate.ErrUpstream)
		}
		c.header.Set("MS-ContinuationToken", h.Value)
	}
	return nil
}

// value writes v as one line.
func (s *stream) value(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.line(data)
}
