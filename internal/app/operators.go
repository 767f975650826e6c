package app

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/entra"
	"github.com/mandate-sam/mandate/store"
)

// Operators says who runs this server.
type Operators struct {
	// UIDs are the host accounts that may use the socket. None means the
	// server's own and root.
	UIDs []int `yaml:"uids"`

	// The people: users of one tenant, who sign in to a registration of its
	// own, a public client with http://localhost among its redirect URIs. An
	// empty ClientID means that nobody signs in.
	Cloud     string `yaml:"cloud"` // default global
	Tenant    string `yaml:"tenant"`
	ClientID  string `yaml:"client_id"`
	Endpoints string `yaml:"endpoints"` // v2 (default) or v1

	// AuthenticationContext is the one of conditional access that proves MFA,
	// such as c1. ID tokens of v2 prove it in no other way.
	AuthenticationContext string `yaml:"authentication_context"`

	Allow []Allowed `yaml:"allow"`

	// SecondPerson are the acts for which a second person must agree, as
	// commands: "policy apply", "caller add".
	SecondPerson []string `yaml:"second_person"`
}

// An Allowed is a person, or a group of them, with their roles.
type Allowed struct {
	Object string   `yaml:"object"` // a user's object ID
	Group  string   `yaml:"group"`  // or a group's
	Roles  []string `yaml:"roles"`  // viewer, operator, security
}

const (
	// sessionLife is the longest that an operator stays signed in, and
	// signInLife how long a sign-in may take.
	sessionLife = 8 * time.Hour
	signInLife  = 10 * time.Minute
)

// uids returns who may use the socket.
func (o *Operators) uids() []int {
	if len(o.UIDs) > 0 {
		return o.UIDs
	}
	return slices.Compact([]int{os.Getuid(), 0})
}

// checkOperators checks who may sign in.
func (c *Config) checkOperators(clouds map[string]mandate.Cloud) error {
	o := &c.Operators
	for _, uid := range o.UIDs {
		if uid < 0 {
			return mandate.Invalid("operators.uids", "%d is not a user id", uid)
		}
	}
	if err := api.CheckSecondPerson(o.SecondPerson); err != nil {
		return renamed("operators.second_person", err)
	}
	if o.ClientID == "" {
		if o.Tenant != "" || len(o.Allow) > 0 {
			return mandate.Invalid("operators.client_id", "is required where operators sign in")
		}
		return nil
	}
	for i := range c.Applications {
		if sameID(c.Applications[i].ClientID, o.ClientID) {
			return mandate.Invalid("operators.client_id", "is that of application %q: a public client, to which operators sign in, must be a registration of its own", c.Applications[i].Name)
		}
	}
	if len(o.Allow) == 0 {
		return mandate.Invalid("operators.allow", "is empty: nobody who signs in would have a role")
	}
	for n := range o.Allow {
		if err := o.Allow[n].check(); err != nil {
			return at(fmt.Sprintf("operators.allow[%d]", n), err)
		}
	}
	if _, err := c.operators(clouds, http.DefaultClient); err != nil {
		return at("operators", err)
	}
	return nil
}

func (a *Allowed) check() error {
	if (a.Object == "") == (a.Group == "") {
		return mandate.Invalid("object", "or group is required, and not both")
	}
	if _, err := mandate.ParseObjectID(cmp.Or(a.Object, a.Group)); err != nil {
		return mandate.Invalid("object", "%.60q is not an object ID", cmp.Or(a.Object, a.Group))
	}
	if len(a.Roles) == 0 {
		return mandate.Invalid("roles", "is empty")
	}
	for _, r := range a.Roles {
		if r != api.RoleViewer && r != api.RoleOperator && r != api.RoleSecurity {
			return mandate.Invalid("roles", "%.40q is none of viewer, operator and security", r)
		}
	}
	return nil
}

// operators returns what verifies sign-ins; h asks for the issuer's keys.
func (c *Config) operators(clouds map[string]mandate.Cloud, h *http.Client) (*entra.Operators, error) {
	o := &c.Operators
	cloud, ok := clouds[cmp.Or(o.Cloud, "global")]
	if !ok {
		return nil, mandate.Invalid("cloud", "%.40q is neither one of Microsoft's (global, usgov, china) nor in clouds", o.Cloud)
	}
	tenant, err := mandate.ParseTenantID(o.Tenant)
	if err != nil {
		return nil, renamed("tenant", err)
	}
	id, err := mandate.ParseAppID(o.ClientID)
	if err != nil {
		return nil, renamed("client_id", err)
	}
	return entra.NewOperators(entra.Config{Cloud: cloud, Application: id, Version: entra.Version(o.Endpoints), HTTP: h}, tenant, o.AuthenticationContext)
}

// signIns lets operators sign in. It implements [api.SignIns].
type signIns struct {
	*entra.Operators
	store *store.Store
	allow []Allowed
}

// signIns returns what operators sign in with, or nil.
func (p *parts) signIns(c *Config) (api.SignIns, error) {
	if c.Operators.ClientID == "" {
		return nil, nil
	}
	h, err := c.httpClient(p.clouds[cmp.Or(c.Operators.Cloud, "global")])
	if err != nil {
		return nil, fmt.Errorf("operators: %w", err)
	}
	verifier, err := c.operators(p.clouds, h)
	if err != nil {
		return nil, fmt.Errorf("operators: %w", err)
	}
	return &signIns{verifier, p.store, c.Operators.Allow}, nil
}

// Begin implements [api.SignIns].
func (s *signIns) Begin(ctx context.Context) (api.SignInStart, error) {
	nonce, err := s.store.BeginSignIn(ctx, time.Now().Add(signInLife))
	o := s.Start()
	return api.SignInStart{
		AuthorizeURL: o.AuthorizeURL, TokenURL: o.TokenURL, ClientID: o.ClientID, Scope: o.Scope, Claims: o.Claims, Nonce: nonce,
	}, err
}

// Finish implements [api.SignIns]. The nonce is used up when nothing else is
// wrong with the token, so that nobody uses up another's with one that is not
// Entra's.
func (s *signIns) Finish(ctx context.Context, idToken string) (api.Operator, mandate.Secret, error) {
	in, err := s.Verify(ctx, idToken)
	if err != nil {
		return api.Operator{}, mandate.Secret{}, err
	}
	if err := s.store.FinishSignIn(ctx, in.Nonce); err != nil {
		return api.Operator{}, mandate.Secret{}, err
	}
	now := time.Now().Truncate(time.Millisecond)
	session := store.Session{
		Issuer: s.Issuer(), User: in.Identity, UserName: in.UserName, Groups: in.Groups, SignedIn: in.SignedIn, Created: now, Expires: now.Add(sessionLife),
	}
	if !in.SignedIn.IsZero() {
		session.Expires = in.SignedIn.Add(sessionLife)
	}
	o := s.operator(&session)
	switch {
	case len(o.Roles) == 0:
		return o, mandate.Secret{}, &mandate.DeniedError{Decision: mandate.Decision{Reason: in.UserName + " has no role here"}}
	case !session.Expires.After(now):
		return o, mandate.Secret{}, fmt.Errorf("%w: the sign-in is more than %v old", mandate.ErrUnauthenticated, sessionLife)
	}
	secret, err := s.store.AddSession(ctx, session)
	return o, secret, err
}

// operator gives a session the roles of now. A person of an issuer that is no
// longer the configured one has none.
func (s *signIns) operator(in *store.Session) api.Operator {
	o := api.Operator{Issuer: in.Issuer, User: in.User, UserName: in.UserName, SignedIn: in.SignedIn, Expires: in.Expires}
	if in.Issuer != s.Issuer() {
		return o
	}
	for _, a := range s.allow {
		member := slices.ContainsFunc(in.Groups, func(g string) bool { return strings.EqualFold(g, a.Group) })
		if a.Object != "" && strings.EqualFold(a.Object, in.User.Object.String()) || a.Group != "" && member {
			o.Roles = append(o.Roles, a.Roles...)
		}
	}
	slices.Sort(o.Roles)
	o.Roles = slices.Compact(o.Roles)
	return o
}

// Session implements [api.SignIns].
func (s *signIns) Session(ctx context.Context, secret mandate.Secret) (api.Operator, error) {
	in, err := s.store.Session(ctx, secret)
	if err != nil {
		return api.Operator{}, err
	}
	return s.operator(&in), nil
}

// End implements [api.SignIns].
func (s *signIns) End(ctx context.Context, secret mandate.Secret) error {
	return s.store.EndSession(ctx, secret)
}
