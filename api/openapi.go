package api

import (
	_ "embed"
	"net/http"

	"github.com/mandate-sam/mandate"
)

// openAPIDocument describes the API. A test holds it against the server, both
// ways: every route, status and field.
//
//go:embed openapi.json
var openAPIDocument []byte

func (s *Server) openAPI(w http.ResponseWriter, _ *http.Request, _ mandate.CallerID) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(openAPIDocument) // too late to tell anybody
	return nil
}
