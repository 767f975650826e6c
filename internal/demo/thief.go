package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/emulator"
	"github.com/mandate-sam/mandate/entra"
)

// A thief has what redeeming a consent takes: the application's credential and
// a refresh token.
type thief struct {
	credential entra.Credential
	refresh    string
}

// copied returns the application's credential as its file has it now.
func (d *Demo) copied() (entra.Credential, error) {
	if d.cfg.Secret {
		return entra.LoadSecret(d.File("application.secret"))
	}
	return entra.LoadCertificate(d.File("application.pem"))
}

// redeem presents the refresh token, and returns what Entra said if it refused.
func (x *thief) redeem(ctx context.Context, d *Demo) (refused string, err error) {
	_, refused, err = d.askEntra(ctx, emulator.ContosoTenant, x.credential, url.Values{
		"grant_type": {"refresh_token"}, "refresh_token": {x.refresh}, "scope": {d.Emulator.Endpoints().Graph + "/.default"},
	})
	return refused, err
}

// obtain returns a refresh token that another program obtains for user in
// tenant, as the same application.
func (d *Demo) obtain(ctx context.Context, tenant, user string, credential entra.Credential) (string, error) {
	application, _ := d.Emulator.Application(emulator.ApplicationID)
	redirect := d.Portal + "/elsewhere"
	if !slices.Contains(application.RedirectURIs, redirect) {
		application.RedirectURIs = append(application.RedirectURIs, redirect)
		if err := d.Emulator.Register(application); err != nil {
			return "", err
		}
	}
	login, scope := d.Emulator.Endpoints().Login, "openid offline_access "+d.Emulator.Endpoints().Graph+"/.default"
	b := NewBrowser(d.Emulator.Client().Transport)
	p, err := b.Open(ctx, login+"/"+tenant+"/oauth2/v2.0/authorize?"+url.Values{
		"client_id": {emulator.ApplicationID}, "response_type": {"code"}, "redirect_uri": {redirect}, "scope": {scope}, "state": {"s"},
	}.Encode())
	if err == nil {
		p, err = b.signIn(ctx, p, login, user, "accept", func(string) {})
	}
	if err != nil {
		return "", err
	}
	refresh, refused, err := d.askEntra(ctx, tenant, credential, url.Values{
		"grant_type": {"authorization_code"}, "code": {p.At.Query().Get("code")}, "redirect_uri": {redirect}, "scope": {scope},
	})
	if err == nil && refresh == "" {
		err = fmt.Errorf("no refresh token in the answer: %s (code at %s)", refused, p.At.Path)
	}
	return refresh, err
}

// askEntra asks the token endpoint as the application, and returns the refresh
// token of the answer, or what Entra said if there is no access token in it.
func (d *Demo) askEntra(ctx context.Context, tenant string, credential entra.Credential, form url.Values) (refresh, refused string, err error) {
	form.Set("client_id", emulator.ApplicationID)
	id, err := mandate.ParseAppID(emulator.ApplicationID)
	if err != nil {
		return "", "", err
	}
	to := d.Emulator.Endpoints().Login + "/" + tenant + "/oauth2/v2.0/token"
	if err := credential.Authenticate(ctx, form, id, to, time.Now()); err != nil {
		return "", "", err
	}
	r, err := http.NewRequestWithContext(ctx, "POST", to, strings.NewReader(form.Encode()))
	if err != nil {
		return "", "", err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := d.Emulator.Client().Do(r)
	if err != nil {
		return "", "", err
	}
	defer res.Body.Close()
	var out struct {
		Access      string `json:"access_token"`
		Refresh     string `json:"refresh_token"`
		Description string `json:"error_description"`
	}
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		return "", "", err
	}
	if out.Access == "" && out.Description == "" {
		return "", "", errors.New("the token endpoint answered " + res.Status)
	}
	said, _, _ := strings.Cut(out.Description, " Trace ID")
	return out.Refresh, strings.TrimSpace(said), nil
}
