package entra

import (
	"strings"
	"time"

	"github.com/mandate-sam/mandate/emulator/internal/token"
)

// idToken makes the ID token of an answer, in the dialect of the endpoint.
func (s *Server) idToken(a *attempt, i issuance, now time.Time) (string, error) {
	c := s.idClaims(a, i, now)
	dial := s.cfg.Dials.Dials().IDToken
	for claim, value := range map[string]string{
		"iss": dial.Issuer, "tid": dial.TenantID, "aud": dial.Audience,
		"nonce": dial.Nonce, "oid": dial.Subject, "idp": dial.IDP,
	} {
		if value != "" {
			c[claim] = value
		}
	}
	if dial.Guest {
		c["acct"] = 1
	}
	if dial.Expired {
		c["exp"] = now.Add(-time.Hour).Unix()
	}
	switch {
	case dial.Unsigned && a.version == 1:
		return token.Unsigned(c)
	case dial.Algorithm == "HS256":
		return s.cfg.Key.SignHMAC(strings.Join(a.client.Secrets[:min(1, len(a.client.Secrets))], ""), c)
	case dial.UnknownID:
		return s.cfg.Key.SignAs("no-such-key", c, a.version == 1)
	}
	raw, err := s.cfg.Key.Sign(c, a.version == 1)
	if dial.BadSig {
		raw = spoil(raw)
	}
	return raw, err
}

// spoil changes the signature of a token without changing its form.
func spoil(raw string) string {
	i := strings.LastIndex(raw, ".") + 10
	other := byte('A')
	if raw[i] == 'A' {
		other = 'B'
	}
	return raw[:i] + string(other) + raw[i+1:]
}

// idClaims are the claims of an ID token. v1 says how the person signed in
// (amr); v2 does not.
func (s *Server) idClaims(a *attempt, i issuance, now time.Time) map[string]any {
	c := s.baseClaims(i.tenant, a.client.ID, now, s.idLifetime(a), a.version)
	s.addUser(c, a, i)
	if a.version == 1 {
		s.addAMR(c, i)
	} else {
		s.asV2(c, i)
	}
	if i.signIn.Nonce != "" && i.fromCode {
		c["nonce"] = i.signIn.Nonce
	}
	if i.user.Guest() {
		c["acct"] = 1
	}
	addRoles(c, s.cfg.Directory.AppRoles(i.tenant, i.user.ID, a.client.ID))
	for name, hash := range i.hashes {
		c[name] = hash
	}
	s.addAuthTime(c, i.signIn)
	return c
}

// asV2 turns the names of v1 claims into those of v2.
func (s *Server) asV2(c map[string]any, i issuance) {
	for _, name := range []string{"upn", "unique_name", "ipaddr", "given_name", "family_name"} {
		delete(c, name)
	}
	c["preferred_username"] = i.user.UPN
	if !i.ask.has("profile") {
		// "ID token claims reference": these need the scope.
		for _, name := range []string{"name", "oid", "preferred_username"} {
			delete(c, name)
		}
	}
	if i.ask.has("email") {
		c["email"] = i.user.Mail
	}
	if len(i.signIn.ACRs) > 0 {
		c["acrs"] = i.signIn.ACRs
	}
}

func (s *Server) addAuthTime(c map[string]any, in token.SignIn) {
	dial := s.cfg.Dials.Dials().AuthTime
	t := in.Time
	switch {
	case dial == "absent", dial != "always" && !in.AuthTime:
		return
	case dial == "old":
		t = t.AddDate(-1, 0, 0)
	}
	c["auth_time"] = t.Unix()
}
