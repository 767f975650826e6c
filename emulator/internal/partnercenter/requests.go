package partnercenter

import (
	"bytes"
	"crypto/sha256"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	maxRecords = 10_000    // of each partner
	maxWritten = 10_000    // of all callers
	maxWrite   = 1<<20 + 1 // more of a body than any handler reads
)

// record is what partnerRequests says about one call.
type record struct {
	time                       time.Time
	request, correlation       string
	operation, address         string
	upn, objectID, application string
	mfa                        bool
}

// refresh forgets everything if the directory was cleared. The caller holds
// s.mu.
func (s *Server) refresh() {
	if g := s.cfg.Directory.Generation(); g != s.generation || s.log == nil {
		s.generation, s.log, s.budgets, s.written = g, map[string][]record{}, map[string]budget{}, map[string]written{}
	}
}

// record keeps the last calls that were made with a user's token.
func (s *Server) record(w http.ResponseWriter, c call, rt route) {
	if c.partner.ID == "" || c.token.AppOnly() {
		return
	}
	r := record{
		time: s.cfg.Dials.Now(), request: w.Header().Get("MS-RequestId"), correlation: w.Header().Get("MS-CorrelationId"),
		operation: strings.Replace(rt.pattern, " /", " ", 1), address: remoteAddress(c.RemoteAddr),
		upn: c.token.Holder.UPN, objectID: c.token.Holder.ID, application: c.token.App, mfa: c.token.MFA(),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refresh()
	log := append(s.log[c.partner.ID], r)
	if len(log) > 2*maxRecords { // copies once in maxRecords calls
		log = slices.Clone(log[len(log)-maxRecords:])
	}
	s.log[c.partner.ID] = log
}

// remoteAddress is the address without the port.
func remoteAddress(hostPort string) string {
	host, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		return hostPort
	}
	return host
}

// recorded are the last calls of the partner's users, oldest first.
func (s *Server) recorded(c call) []record {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refresh()
	log := s.log[c.partner.ID]
	return slices.Clone(log[max(0, len(log)-maxRecords):])
}

// partnerRequests lists the last calls made in the name of the partner's
// users, newest first.
func (s *Server) partnerRequests(c call) (reply, error) {
	log := s.recorded(c)
	slices.Reverse(log)
	return ok(page(c, log, "/partnerRequests", func(r record) map[string]any {
		return map[string]any{
			"requestId": r.request, "correlationId": r.correlation, "requestDateTime": r.time.UTC().Format(time.RFC3339Nano),
			"operationName": r.operation, "ipAddress": r.address, "tenantId": c.partner.ID,
			"upn": r.upn, "objectId": r.objectID, "applicationId": r.application, "mfaCompliant": r.mfa,
		}
	}))
}

// written is the answer to a write, for the same request when it comes again.
type written struct {
	fingerprint [32]byte
	answer      reply
}

// once handles the call. A write that succeeded is not repeated: the same
// MS-RequestId with the same body has the same answer again, and with
// another body it is refused. What was refused had no effect and is judged
// afresh.
func (s *Server) once(c call, rt route) (reply, error) {
	id := c.Header.Get("MS-RequestId")
	if c.Method == http.MethodGet || id == "" {
		return rt.handle(s, c)
	}
	body, err := io.ReadAll(io.LimitReader(c.Body, maxWrite))
	if err != nil {
		return reply{}, errBadRequest
	}
	c.Body = io.NopCloser(bytes.NewReader(body))
	key := strings.Join([]string{c.partner.ID, c.token.App, id}, "\n")
	print := sha256.Sum256([]byte(c.Method + "\n" + c.URL.Path + "\n" + string(body)))
	s.writing.Lock()
	defer s.writing.Unlock()
	if old, found := s.recall(key); found {
		if old.fingerprint != print {
			return reply{}, errRepeated
		}
		return old.answer.clone(), nil
	}
	out, err := rt.handle(s, c)
	if err == nil {
		s.remember(key, written{print, out.clone()})
	}
	return out, err
}

func (s *Server) recall(key string) (written, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refresh()
	old, found := s.written[key]
	return old, found
}

// remember keeps the answer. When there are too many, all are forgotten: an
// emulator has no reason to be clever about that.
func (s *Server) remember(key string, w written) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refresh()
	if len(s.written) >= maxWritten {
		clear(s.written)
	}
	s.written[key] = w
}
