package entra

import (
	"errors"
	"net/http"

	"github.com/mandate-sam/mandate/emulator/directory"
	"github.com/mandate-sam/mandate/emulator/internal/bearer"
)

// userInfo is the UserInfo endpoint of v1 metadata, on this host. It takes
// tokens for signing in: for either Graph. A token that does not do is refused
// as RFC 6750 says.
func (s *Server) userInfo(w http.ResponseWriter, r *http.Request) {
	cacheable(w)
	t, err := bearer.Config{Directory: s.cfg.Directory, Dials: s.cfg.Dials, Key: s.cfg.Key}.Read(r)
	if id := t.Resource.ID; err == nil && (t.AppOnly() || id != directory.Graph && id != directory.AzureADGraph) {
		err = errNotForUs
	}
	if err != nil {
		e := refuse(50027, "The access token is missing, has expired, was revoked or is for somebody else.").as("invalid_token")
		e.status = http.StatusUnauthorized
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		s.writeError(w, e, 1, s.trace(r))
		return
	}
	body := map[string]any{
		"sub": t.Subject, "oid": t.Holder.ID, "tid": t.Tenant, "upn": t.Holder.UPN, "unique_name": t.Holder.UPN,
		"name": t.Holder.Name, "given_name": t.Holder.GivenName, "family_name": t.Holder.Surname,
	}
	writeJSON(w, http.StatusOK, s.trace(r), body)
}

var errNotForUs = errors.New("token is for another resource")
