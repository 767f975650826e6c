package entra

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mandate-sam/mandate/emulator/directory"
	"github.com/mandate-sam/mandate/emulator/internal/token"
)

// An issuance is a decision to be made: tokens for the user, in the tenant,
// going back to the sign-in, for what is asked.
type issuance struct {
	user     directory.User
	tenant   string
	signIn   token.SignIn
	ask      ask
	fromCode bool
	hashes   map[string]string // c_hash and at_hash of an ID token from the authorization endpoint
}

// answer is the JSON of a token answer. Numbers are any, because v1 writes
// them as strings.
type answer struct {
	TokenType    string `json:"token_type"`
	Scope        string `json:"scope,omitempty"`
	ExpiresIn    any    `json:"expires_in"`
	ExtExpiresIn any    `json:"ext_expires_in"`
	RefreshIn    any    `json:"refresh_in,omitempty"` // of long-lived tokens
	ExpiresOn    string `json:"expires_on,omitempty"` // v1
	NotBefore    string `json:"not_before,omitempty"` // v1
	Resource     string `json:"resource,omitempty"`   // v1
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token,omitempty"`
	IDToken      string `json:"id_token,omitempty"`
	ClientInfo   string `json:"client_info,omitempty"`
}

// issue decides whether the tokens may be issued, and issues them.
func (s *Server) issue(a *attempt, i issuance) (any, *refusal) {
	a.log.Tenant = i.tenant
	t, signInOnly := i.ask.first(s)
	a.log.Resource = t.audience
	if e := s.refusedToken(a, i.tenant, i.user.UPN, t); e != nil {
		return nil, e
	}
	scopes, e := s.allowed(a, i, t, signInOnly)
	if e != nil {
		return nil, e
	}
	if e := s.strongEnough(a, i, t); e != nil {
		return nil, e
	}
	return s.mint(a, i, t, scopes)
}

// first is the target that the token is for: the first one named. A request
// that names none, or v1 no resource, is for signing in only, and gets a token
// that says who signed in and nothing more.
func (k ask) first(s *Server) (t target, signInOnly bool) {
	if len(k.targets) == 0 {
		r, _ := s.cfg.Directory.Resource(directory.Graph)
		return target{resource: r, audience: directory.Graph, isGraph: true}, true
	}
	t = k.targets[0]
	return t, t.audience == directory.AzureADGraph
}

// allowed returns the scopes that the token gets: all that are consented for
// the resource, whatever was asked, as Entra does.
func (s *Server) allowed(a *attempt, i issuance, t target, signInOnly bool) ([]string, *refusal) {
	d := s.cfg.Directory
	if !d.MayAct(i.user, i.tenant) {
		return nil, refuse(50020, i.user.UPN, s.issuer(i.user.Home(), 1), s.tenantName(i.tenant), a.client.ID)
	}
	if i.user.Tenant != i.tenant && !d.Installed(i.tenant, a.client.ID) {
		return nil, refuse(90099, a.client.ID, s.tenantName(i.tenant))
	}
	if !d.HasResource(i.tenant, t.resource.ID) {
		return nil, refuse(500011, t.audience, s.tenantName(i.tenant))
	}
	have := d.Consented(i.tenant, a.client.ID, i.user.ID, t.resource.ID)
	if t.resource.ID == a.client.ID { // its own API needs no consent
		have = scopeNames(t.resource)
	}
	if signInOnly {
		return have, nil
	}
	if len(have) == 0 {
		return nil, refuse(65001, a.client.ID)
	}
	for _, name := range t.scopes {
		if !contains(have, name) {
			return nil, refuse(65001, a.client.ID)
		}
	}
	if s.cfg.Dials.Dials().ScopesAsAsked && len(t.scopes) > 0 {
		return t.scopes, nil
	}
	return have, nil
}

func scopeNames(r directory.Resource) []string {
	var names []string
	for _, sc := range r.Scopes {
		names = append(names, sc.Name)
	}
	return names
}

// strongEnough holds the sign-in against what the resource demands. The MFA
// of the sign-in is inherited; it cannot be added here.
func (s *Server) strongEnough(a *attempt, i issuance, t target) *refusal {
	demanded := len(a.claims.acrs()) > 0
	for _, name := range s.cfg.Dials.Dials().MFAResources {
		r, ok := s.cfg.Directory.Resource(name)
		demanded = demanded || ok && r.ID == t.resource.ID
	}
	if !demanded || i.signIn.MFA() {
		return nil
	}
	if !s.hasMFA(i.user) {
		return refuse(50079, t.resource.ID)
	}
	return refuse(50076, t.resource.ID)
}

func (s *Server) mint(a *attempt, i issuance, t target, scopes []string) (any, *refusal) {
	now := s.cfg.Dials.Now()
	life := s.lifetime(a)
	access, err := s.cfg.Key.Sign(s.accessClaims(a, i, t, scopes, now, life), t.resource.TokenVersion != 2)
	if err != nil {
		return nil, s.internal(err)
	}
	out := s.newAnswer(a.version, t, now, life)
	out.AccessToken = access
	out.Scope = scopeAnswer(a.version, t, scopes, i.ask)
	if i.ask.has("openid") {
		if out.IDToken, err = s.idToken(a, i, now); err != nil {
			return nil, s.internal(err)
		}
	}
	if i.ask.has("offline_access") {
		out.RefreshToken = s.newRefresh(a, i.signIn)
	}
	if a.form.Get("client_info") == "1" {
		out.ClientInfo = clientInfo(i.user)
	}
	a.log.AccessTokenSHA256 = digest(access)
	return out, nil
}

func (s *Server) internal(err error) *refusal {
	s.cfg.Log.Error("issue token", "err", err)
	return refuse(90033)
}

// lifetime is 60 to 90 minutes at random, or longer for a client that answers
// claims challenges.
func (s *Server) lifetime(a *attempt) time.Duration {
	if d := s.cfg.Dials.Dials().AccessTokenLifetime; d > 0 {
		return d
	}
	if d := s.cfg.Directory.AccessTokenLifetime(a.client.ID); d > 0 {
		return d
	}
	if a.claims.continuous() {
		return 24*time.Hour + time.Duration(s.cfg.Chance.Intn(4*3600))*time.Second
	}
	return time.Hour + time.Duration(s.cfg.Chance.Intn(1800))*time.Second
}

// idLifetime is an hour. A policy for access tokens holds for ID tokens too
// ("Configurable token lifetimes").
func (s *Server) idLifetime(a *attempt) time.Duration {
	return cmp.Or(s.cfg.Dials.Dials().IDTokenLifetime, s.cfg.Directory.AccessTokenLifetime(a.client.ID), time.Hour)
}

func (s *Server) newAnswer(version int, t target, now time.Time, life time.Duration) answer {
	n := int(life / time.Second)
	var early any // when to ask for another one, half-way through
	if life >= 2*time.Hour {
		early = n / 2
	}
	if version == 2 {
		return answer{TokenType: "Bearer", ExpiresIn: n, ExtExpiresIn: n, RefreshIn: early}
	}
	text := strconv.Itoa(n)
	if early != nil {
		early = strconv.Itoa(n / 2)
	}
	return answer{
		RefreshIn: early,
		TokenType: "Bearer", ExpiresIn: text, ExtExpiresIn: text,
		ExpiresOn: strconv.FormatInt(now.Unix()+int64(n), 10),
		NotBefore: strconv.FormatInt(now.Unix(), 10),
		Resource:  t.audience,
	}
}

// scopeAnswer is the scope of the answer. v1 writes bare names; v2 puts the
// resource before each, and adds .default and the OpenID Connect scopes if they
// were asked for.
func scopeAnswer(version int, t target, scopes []string, k ask) string {
	if version == 1 {
		return strings.Join(scopes, " ")
	}
	prefix := t.audience + "/"
	if t.isGraph {
		prefix = graphURI + "/"
	}
	var out []string
	for _, sc := range scopes {
		out = append(out, prefix+sc)
	}
	if k.statics && len(t.scopes) == 0 {
		// As Entra does: a client that asked for .default takes its absence
		// for a refusal.
		out = append(out, prefix+".default")
	}
	for _, sc := range []string{"openid", "profile", "email"} {
		if k.has(sc) {
			out = append(out, sc)
		}
	}
	return strings.Join(out, " ")
}

// accessClaims are those of a user's access token. Its format depends on the
// resource, whichever endpoint it comes from: all of Microsoft's want 1.0.
func (s *Server) accessClaims(a *attempt, i issuance, t target, scopes []string, now time.Time, life time.Duration) map[string]any {
	c := s.baseClaims(i.tenant, t.audience, now, life, 1)
	if t.resource.ID == directory.Graph {
		c["xms_st"] = map[string]any{"sub": pairwise(i.user.ID, a.client.ID)} // for its UserInfo endpoint
		for _, sc := range []string{"openid", "profile", "email"} {
			if i.ask.has(sc) && !slices.Contains(scopes, sc) {
				scopes = append(slices.Clone(scopes), sc)
			}
		}
	}
	s.addUser(c, a, i)
	c["acct"] = acct(i.user)
	c["puid"], c["sid"], c["platf"] = puid(i.user), i.signIn.Session(), "14"
	c["tenant_region_scope"], c["xms_tcdt"] = "NA", tenantBirth
	c["appid"], c["appidacr"], c["app_displayname"] = a.client.ID, a.strength, a.client.Name
	c["idtyp"] = "user"
	c["scp"] = strings.Join(scopes, " ")
	c["wids"] = s.wids(i)
	if len(i.signIn.ACRs) > 0 {
		c["acrs"] = i.signIn.ACRs
	}
	if a.claims.continuous() {
		c["xms_cc"] = []string{"CP1"}
	}
	c["acr"] = "1"
	s.addAMR(c, i)
	if t.resource.Application {
		c["xms_emulator_amr"] = i.signIn.AMR
		delete(c, "wids") // only with groupMembershipClaims, which no registration here has
	}
	addRoles(c, s.cfg.Directory.AppRoles(i.tenant, i.user.ID, t.resource.ID))
	if t.resource.TokenVersion == 2 {
		s.accessAsV2(c, i.tenant, t)
		c["preferred_username"] = i.user.UPN
	}
	return c
}

// accessAsV2 turns the claims of an access token into those of the newer
// format.
func (s *Server) accessAsV2(c map[string]any, tenant string, t target) {
	c["azp"], c["azpacr"] = c["appid"], c["appidacr"]
	for _, name := range []string{"appid", "appidacr", "app_displayname", "amr", "acr", "upn", "unique_name", "ipaddr", "acct", "given_name", "family_name", "puid", "platf", "tenant_region_scope", "xms_tcdt"} {
		delete(c, name)
	}
	c["aud"], c["iss"], c["ver"] = t.resource.ID, s.issuer(tenant, 2), "2.0"
}

// wids are the user's directory roles. In a customer's tenant they are the
// roles of the delegated administration.
func (s *Server) wids(i issuance) []string {
	if i.user.Tenant != i.tenant {
		return s.cfg.Directory.DelegatedRoles(i.user.Tenant, i.tenant)
	}
	return append(slices.Clone(i.user.Roles), directory.RoleMember)
}

// tenantBirth is when every tenant here was made, as xms_tcdt has it.
const tenantBirth = 1_700_000_000

// puid is the user's number, sixteen hexadecimal digits.
func puid(u directory.User) string {
	sum := sha256.Sum256([]byte(u.ID))
	return "1003" + strings.ToUpper(hex.EncodeToString(sum[:6]))
}

func acct(u directory.User) int {
	if u.Guest() {
		return 1
	}
	return 0
}

// baseClaims are those of every token.
func (s *Server) baseClaims(tenant, audience string, now time.Time, life time.Duration, version int) map[string]any {
	n := now.Unix()
	return map[string]any{
		"aud": audience, "iss": s.issuer(tenant, version), "tid": tenant,
		"iat": n, "nbf": n, "exp": n + int64(life/time.Second),
		"uti": s.cfg.Chance.Text(16), "rh": "1." + s.cfg.Chance.Text(24) + ".", "aio": s.cfg.Chance.Text(32),
		"ver": strconv.Itoa(version) + ".0", "xms_emulator_iat": now.UnixMicro(),
	}
}

// addUser adds who the token is about, as v1 tokens say it.
func (s *Server) addUser(c map[string]any, a *attempt, i issuance) {
	u := i.user
	c["oid"], c["sub"] = u.ID, pairwise(u.ID, a.client.ID)
	c["name"], c["given_name"], c["family_name"] = u.Name, u.GivenName, u.Surname
	c["upn"], c["unique_name"] = u.UPN, u.UPN
	c["ipaddr"] = "127.0.0.1"
	if u.Home() != i.tenant {
		c["idp"] = s.issuer(u.Home(), 1)
	}
}

func (s *Server) addAMR(c map[string]any, i issuance) {
	if !s.cfg.Dials.Dials().AMRAbsent {
		c["amr"] = i.signIn.AMR
	}
}

// issueToApp issues a token to the application itself.
func (s *Server) issueToApp(a *attempt, t target) (any, *refusal) {
	now, life := s.cfg.Dials.Now(), s.lifetime(a)
	c := s.baseClaims(a.tenant, t.audience, now, life, 1)
	principal := guidFrom(a.client.ID, a.tenant)
	c["oid"], c["sub"], c["idp"] = principal, principal, s.issuer(a.tenant, 1)
	c["appid"], c["appidacr"], c["app_displayname"] = a.client.ID, a.strength, a.client.Name
	c["idtyp"] = "app"
	addRoles(c, s.cfg.Directory.AppRoles(a.tenant, a.client.ID, t.resource.ID))
	v1 := t.resource.TokenVersion != 2
	if !v1 {
		s.accessAsV2(c, a.tenant, t)
	}
	access, err := s.cfg.Key.Sign(c, v1)
	if err != nil {
		return nil, s.internal(err)
	}
	out := s.newAnswer(a.version, t, now, life)
	out.AccessToken = access
	a.log.AccessTokenSHA256 = digest(access)
	return out, nil
}

// addRoles adds the roles of the API that the token is for, if there are any.
func addRoles(c map[string]any, roles []string) {
	if len(roles) > 0 {
		c["roles"] = roles
	}
}

// pairwise is a subject that differs from client to client.
func pairwise(user, client string) string {
	sum := sha256.Sum256([]byte(user + "|" + client))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// guidFrom derives a fixed id, such as that of a service principal.
func guidFrom(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "|")))
	h := hex.EncodeToString(sum[:16])
	return h[:8] + "-" + h[8:12] + "-4" + h[13:16] + "-8" + h[17:20] + "-" + h[20:]
}

// clientInfo tells a client which account it is, by the account's home.
func clientInfo(u directory.User) string {
	b, _ := json.Marshal(map[string]string{"uid": u.ID, "utid": u.Home()}) // two strings always encode
	return base64.RawURLEncoding.EncodeToString(b)
}
