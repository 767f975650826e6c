package graph

import (
	"cmp"
	"crypto/sha1"
	"crypto/x509"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/mandate-sam/mandate/emulator/directory"
)

// applicationBody is an application as clients send it. What is nil is left
// as it is.
type applicationBody struct {
	DisplayName    *string  `json:"displayName"`
	SignInAudience *string  `json:"signInAudience"`
	FallbackPublic *bool    `json:"isFallbackPublicClient"`
	IdentifierURIs []string `json:"identifierUris"`
	Web            *webBody `json:"web"`
	SPA            *struct {
		RedirectURIs []string `json:"redirectUris"`
	} `json:"spa"`
	Required       []directory.Required `json:"requiredResourceAccess"`
	KeyCredentials *[]keyBody           `json:"keyCredentials"`
}

// webBody is what an application says of its pages.
type webBody struct {
	RedirectURIs []string `json:"redirectUris"`
	Implicit     *struct {
		AccessToken *bool `json:"enableAccessTokenIssuance"`
		IDToken     *bool `json:"enableIdTokenIssuance"`
	} `json:"implicitGrantSettings"`
}

func (b *webBody) apply(a *directory.Application) {
	if b == nil {
		return
	}
	if b.RedirectURIs != nil {
		a.RedirectURIs = b.RedirectURIs
	}
	if i := b.Implicit; i != nil && i.AccessToken != nil {
		a.IssueAccessTokens = *i.AccessToken
	}
	if i := b.Implicit; i != nil && i.IDToken != nil {
		a.IssueIDTokens = *i.IDToken
	}
}

// singleTenant is the audience of an application that stays at home.
const singleTenant = "AzureADMyOrg"

var audiences = []string{singleTenant, "AzureADMultipleOrgs", "AzureADandPersonalMicrosoftAccount", "PersonalMicrosoftAccount"}

// apply changes a and r as the body says.
func (b applicationBody) apply(d *directory.Directory, a *directory.Application, r *directory.Registration) {
	if b.DisplayName != nil {
		a.Name = *b.DisplayName
	}
	if b.SignInAudience != nil {
		r.Audience, a.SingleTenant = *b.SignInAudience, *b.SignInAudience == singleTenant
	}
	if b.FallbackPublic != nil {
		a.Public = *b.FallbackPublic
	}
	if b.IdentifierURIs != nil {
		a.IdentifierURIs = b.IdentifierURIs
	}
	b.Web.apply(a)
	if b.SPA != nil && b.SPA.RedirectURIs != nil {
		a.SPARedirectURIs = b.SPA.RedirectURIs
	}
	if b.Required != nil {
		r.Required, a.Access = b.Required, d.AccessOf(b.Required)
	}
}

func (b applicationBody) check() error {
	if b.DisplayName != nil && (*b.DisplayName == "" || len(*b.DisplayName) > 256) {
		return invalid("Invalid value specified for property 'displayName' of resource 'Application'.")
	}
	if b.SignInAudience != nil && !slices.Contains(audiences, *b.SignInAudience) {
		return invalid("Invalid value specified for property 'signInAudience' of resource 'Application'.")
	}
	return nil
}

// applicationObject is the application as Graph shows it. Values of
// credentials are not in it.
func (s *Server) applicationObject(a directory.Application) map[string]any {
	r, _ := s.cfg.Directory.Registration(a.ID)
	t, _ := s.cfg.Directory.Tenant(a.Tenant)
	secrets, keys := []any{}, []any{}
	for _, v := range a.Secrets {
		secrets = append(secrets, secretObject(s.cfg.Directory.Credential(a.ID, []byte(v)), v[:min(3, len(v))]))
	}
	for _, der := range a.Certificates {
		keys = append(keys, keyObject(s.cfg.Directory.Credential(a.ID, der), der))
	}
	created := r.Created
	if created.IsZero() {
		created = epoch
	}
	audience := cmp.Or(r.Audience, "AzureADMultipleOrgs")
	if a.SingleTenant {
		audience = singleTenant
	}
	return map[string]any{
		"id": directory.ObjectID(a.ID), "appId": a.ID, "displayName": a.Name, "createdDateTime": stamp(created),
		"signInAudience": audience, "publisherDomain": t.Domain,
		"identifierUris": list(a.IdentifierURIs), "isFallbackPublicClient": a.Public, "tags": []string{}, "appRoles": appRoles(a.ID, a.AppRoles),
		"web":                    map[string]any{"redirectUris": list(a.RedirectURIs), "implicitGrantSettings": map[string]any{"enableAccessTokenIssuance": a.IssueAccessTokens, "enableIdTokenIssuance": a.IssueIDTokens}},
		"spa":                    map[string]any{"redirectUris": list(a.SPARedirectURIs)},
		"publicClient":           map[string]any{"redirectUris": []string{}},
		"requiredResourceAccess": s.cfg.Directory.Required(a),
		"passwordCredentials":    secrets,
		"keyCredentials":         keys,
	}
}

// epoch is when everything that nobody dated came to be.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// list is never null in JSON.
func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func secretObject(c directory.Credential, hint string) map[string]any {
	return map[string]any{
		"customKeyIdentifier": nil, "displayName": nullable(c.Name), "hint": cmp.Or(c.Hint, hint), "keyId": c.ID, "secretText": nil,
		"startDateTime": stamp(orEpoch(c.Start, 0)), "endDateTime": stamp(orEpoch(c.End, 100)),
	}
}

func orEpoch(t time.Time, years int) time.Time {
	if t.IsZero() {
		return epoch.AddDate(years, 0, 0)
	}
	return t
}

func keyObject(c directory.Credential, der []byte) map[string]any {
	sum := sha1.Sum(der)
	start, end := c.Start, c.End
	if crt, err := x509.ParseCertificate(der); err == nil && start.IsZero() {
		start, end = crt.NotBefore, crt.NotAfter
	}
	return map[string]any{
		"customKeyIdentifier": base64.StdEncoding.EncodeToString(sum[:]), "displayName": nullable(c.Name), "key": nil, "keyId": c.ID,
		"type": "AsymmetricX509Cert", "usage": "Verify", "startDateTime": stamp(orEpoch(start, 0)), "endDateTime": stamp(orEpoch(end, 100)),
	}
}

// nullable is null in JSON if there is no text.
func nullable(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func (s *Server) applications(c call) (reply, error) {
	own := slices.DeleteFunc(s.cfg.Directory.Applications(), func(a directory.Application) bool {
		return a.Tenant != c.tenant.ID || !s.cfg.Directory.Replicated(a.ID)
	})
	return ok(page(c, "applications", own, s.applicationObject))
}

// mine is the application of the path, which must be the tenant's own.
func (s *Server) mine(c call) (directory.Application, error) {
	id := c.PathValue("id")
	if app, named := strings.CutPrefix(id, appIDPrefix); named {
		if id = directory.ObjectID(app); !s.cfg.Directory.Replicated(app) {
			id = ""
		}
	}
	a, found := s.cfg.Directory.ApplicationByObject(c.tenant.ID, id)
	if !found {
		return a, errNotFound
	}
	if !c.token.Has(writeApps...) && !c.token.Has(readApps...) && !strings.EqualFold(c.token.App, a.ID) {
		return a, errScope // it may change only what it owns
	}
	return a, nil
}

func (s *Server) application(c call) (reply, error) {
	a, err := s.mine(c)
	if err != nil {
		return reply{}, err
	}
	return one(c, "applications", s.applicationObject(a))
}

// createApplication registers an application. It has no service principal
// until one is made.
func (s *Server) createApplication(c call) (reply, error) {
	var in applicationBody
	if err := c.read(&in); err != nil {
		return reply{}, err
	}
	if in.DisplayName == nil {
		return reply{}, invalid("A value is required for property 'displayName' of resource 'Application'.")
	}
	if err := in.check(); err != nil {
		return reply{}, err
	}
	a := directory.Application{ID: s.cfg.Chance.GUID(), Tenant: c.tenant.ID, Publisher: c.tenant.Name, Access: []directory.Access{}, SingleTenant: true}
	r := directory.Registration{Created: s.cfg.Dials.Now(), Audience: singleTenant}
	in.apply(s.cfg.Directory, &a, &r)
	if err := s.cfg.Directory.Create(a, r); err != nil {
		return reply{}, invalid("One or more property values specified are invalid.")
	}
	if err := s.replaceKeys(a, in.KeyCredentials); err != nil {
		s.cfg.Directory.Unregister(a.ID)
		return reply{}, err
	}
	a, _ = s.cfg.Directory.ApplicationByObject(c.tenant.ID, directory.ObjectID(a.ID))
	s.cfg.Directory.DelayApplication(a.ID, s.usable())
	body := s.applicationObject(a)
	body["@odata.context"] = context + "applications/$entity"
	return reply{status: http.StatusCreated, body: body}, nil
}

func (s *Server) patchApplication(c call) (reply, error) {
	a, err := s.mine(c)
	if err != nil {
		return reply{}, err
	}
	var in applicationBody
	if err := c.read(&in); err != nil {
		return reply{}, err
	}
	if err := in.check(); err != nil {
		return reply{}, err
	}
	if err := s.replaceKeys(a, in.KeyCredentials); err != nil {
		return reply{}, err
	}
	err = s.cfg.Directory.Amend(a.ID, func(a *directory.Application, r *directory.Registration) { in.apply(s.cfg.Directory, a, r) })
	if err != nil {
		return reply{}, invalid("One or more property values specified are invalid.")
	}
	return done, nil
}

func (s *Server) deleteApplication(c call) (reply, error) {
	a, err := s.mine(c)
	if err != nil {
		return reply{}, err
	}
	s.cfg.Directory.Unregister(a.ID)
	return done, nil
}
