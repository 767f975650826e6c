package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/net/html"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/audit"
	"github.com/mandate-sam/mandate/emulator"
)

// A visitor is somebody of a partner before its pages.
type visitor struct {
	t    *testing.T
	d    *Demo
	b    *Browser
	user string
	page *Page
}

// visit opens the partner's pages as user, of the partner with that tenant.
func (d *Demo) visit(t *testing.T, user, tenant string) *visitor {
	t.Helper()
	v := &visitor{t: t, d: d, b: NewBrowser(d.Emulator.Client().Transport), user: user}
	v.open("/partner")
	v.submit("tenant", tenant)
	v.microsoft()
	return v
}

func (v *visitor) must(p *Page, err error) {
	v.t.Helper()
	if err != nil {
		v.t.Fatal(err)
	}
	v.page = p
}

func (v *visitor) open(path string) *visitor {
	v.t.Helper()
	v.must(v.b.Open(v.t.Context(), v.d.Portal+path))
	return v
}

// submit submits the page's form to a page of this site.
func (v *visitor) submit(name, value string) *visitor {
	v.t.Helper()
	v.must(v.b.Submit(v.t.Context(), v.page, "", name, value))
	return v
}

// microsoft goes through Microsoft's pages.
func (v *visitor) microsoft() *visitor {
	v.t.Helper()
	v.must(v.b.SignIn(v.t.Context(), v.page, v.d.Emulator.Endpoints().Login, v.user, func(string) {}))
	return v
}

func (v *visitor) reads(all ...string) *visitor {
	v.t.Helper()
	if err := contains(v.page.Text(), all...); err != nil {
		v.t.Errorf("%s at %s: %v", v.user, v.page.At.Path, err)
	}
	return v
}

// offers reports whether the page has a link to a path.
func (v *visitor) offers(path string) bool {
	for n := range v.page.root.Descendants() {
		if n.Type == html.ElementNode && n.Data == "a" && attr(n, "href") == path {
			return true
		}
	}
	return false
}

// post sends a form as a page of that site would, and returns the status.
func (v *visitor) post(path, site string, form url.Values) (int, string) {
	v.t.Helper()
	req, err := http.NewRequestWithContext(v.t.Context(), http.MethodPost, v.d.Portal+path, strings.NewReader(form.Encode()))
	if err != nil {
		v.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Sec-Fetch-Site", site)
	res, err := v.b.http.Do(req)
	if err != nil {
		v.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// objectOf is the object ID of a user of the emulator's.
func (d *Demo) objectOf(t *testing.T, user string) string {
	t.Helper()
	u, ok := d.Emulator.User(user)
	if !ok {
		t.Fatalf("there is no user %s", user)
	}
	return u.ID
}

const (
	sales = "sales@contoso.example"
	tech  = "tech@contoso.example"
)

// Admin agents have every role, of which Graph is asked, and nobody else has
// any. (Each of these tests has a site of its own, which limits how much one
// address may ask.)
func TestPartnerRoles(t *testing.T) {
	t.Parallel()
	d := consented(t)
	for _, admin := range []string{User, secondUser} {
		v := d.visit(t, admin, emulator.ContosoTenant).reads("Active", admin)
		if !v.offers("/partner/renew") || !v.offers("/partner/withdraw") {
			t.Errorf("%s may not renew or withdraw", admin)
		}
	}
	for _, user := range []string{sales, tech} {
		d.visit(t, user, emulator.ContosoTenant).reads("You have no access here").open("/partner").reads("Sign in to see")
	}
}

// Guests of the tenant and accounts of another get in nowhere.
func TestPartnerStrangers(t *testing.T) {
	t.Parallel()
	d := consented(t)
	d.visit(t, "guest@adventure-works.example", emulator.ContosoTenant).reads("You were not signed in", "guest")
	d.Emulator.Dial(func(d *emulator.Dials) { d.IDToken.TenantID = emulator.FabrikamTenant })
	d.visit(t, User, emulator.ContosoTenant).reads("You were not signed in", "another organisation").open("/partner").reads("Sign in to see")
	d.Emulator.Dial(func(d *emulator.Dials) { d.IDToken.TenantID = "" })
}

// Another partner's people see their own partner, and nothing else; and what
// the operator gives somebody holds from the next page on, and is taken so.
func TestPartnerRolesGiven(t *testing.T) {
	t.Parallel()
	d := consented(t)
	ctx := t.Context()
	in, err := d.Operator.Invite(ctx, api.InviteRequest{Name: "fabrikam", Tenant: emulator.FabrikamTenant, DisplayName: "Fabrikam CSP", AnyUser: true})
	if err != nil {
		t.Fatal(err)
	}
	d.follow(t, in.Link, attempt{user: "admin@fabrikam.example"})
	other := d.visit(t, "admin@fabrikam.example", emulator.FabrikamTenant).reads("Fabrikam CSP")
	if text := other.page.Text(); strings.Contains(text, "Contoso") || strings.Contains(text, User) {
		t.Errorf("fabrikam's page says %q", text)
	}

	object := d.objectOf(t, tech)
	if _, err := d.Operator.AllowPartnerUser(ctx, Partner, api.AllowRequest{User: object, Role: mandate.PartnerViewer}); err != nil {
		t.Fatal(err)
	}
	v := d.visit(t, tech, emulator.ContosoTenant).reads("Active", "Your account may look")
	if v.offers("/partner/renew") || v.offers("/partner/withdraw") {
		t.Error("a viewer is offered what only others may do")
	}
	for _, path := range []string{"/partner/renew", "/partner/withdraw"} {
		v.open(path).reads("You may look")
		if status, _ := v.post(path, "same-origin", url.Values{"confirm": {Partner}}); status != http.StatusForbidden {
			t.Errorf("%s as a viewer: %d", path, status)
		}
	}
	if _, err := d.Operator.AllowPartnerUser(ctx, Partner, api.AllowRequest{User: object, Role: mandate.PartnerWithdrawer}); err != nil {
		t.Fatal(err)
	}
	v.open("/partner/withdraw").reads("type contoso")
	// The role is taken while the form is filled in.
	if _, err := d.Operator.DisallowPartnerUser(ctx, Partner, api.DisallowRequest{User: object}); err != nil {
		t.Fatal(err)
	}
	if status, body := v.post("/partner/withdraw", "same-origin", url.Values{"confirm": {Partner}}); status != http.StatusForbidden || !strings.Contains(body, "Sign in at Microsoft") {
		t.Errorf("after the role was taken: %d", status)
	}
	v.open("/partner").reads("Sign in to see")
	if p, err := d.Operator.Partner(ctx, Partner); err != nil || p.Grant.State != mandate.StateActive {
		t.Errorf("the grant is %+v, %v", p.Grant, err)
	}
}

// While Graph does not tell who is an Admin agent, nobody is one; and the page
// says why.
func TestPartnerRoleUnknown(t *testing.T) {
	t.Parallel()
	d := consented(t)
	d.Emulator.Dial(func(d *emulator.Dials) { d.Outage = []string{"graph"} })
	d.visit(t, User, emulator.ContosoTenant).reads("You were not signed in", "could not be asked of Microsoft").open("/partner").reads("Sign in to see")
	if _, err := d.Operator.AllowPartnerUser(t.Context(), Partner, api.AllowRequest{User: d.objectOf(t, User), Role: mandate.PartnerViewer}); err != nil {
		t.Fatal(err)
	}
	d.visit(t, User, emulator.ContosoTenant).reads("Active", "Your account may look")
	d.Emulator.Dial(func(d *emulator.Dials) { d.Outage = nil })
	v := d.visit(t, User, emulator.ContosoTenant)
	if _, err := d.Operator.Act(t.Context(), Partner, "suspend", api.ActRequest{}); err != nil {
		t.Fatal(err)
	}
	d.visit(t, secondUser, emulator.ContosoTenant).reads("the consent of your organisation does not work at the moment")
	v.open("/partner").reads("Suspended")
}

// A sign-in that Entra does not date, or dates before it was begun, lets look
// and not act.
func TestPartnerActNeedsFreshSignIn(t *testing.T) {
	t.Parallel()
	for _, dial := range []string{"absent", "old"} {
		d := consented(t)
		d.Emulator.Dial(func(d *emulator.Dials) { d.AuthTime = dial })
		v := d.visit(t, User, emulator.ContosoTenant).reads("Active")
		v.open("/partner/withdraw").reads("Sign in once more", "did not say that you signed in just now")
		if status, _ := v.post("/partner/withdraw", "same-origin", url.Values{"confirm": {Partner}}); status != http.StatusForbidden {
			t.Errorf("%s: withdrawing: %d", dial, status)
		}
		d.Emulator.Dial(func(d *emulator.Dials) { d.AuthTime = "" })
		v.submit("", "").microsoft().reads("Withdraw your consent", "type contoso")
		if v.page.At.Path != "/partner/withdraw" {
			t.Errorf("%s: came back to %s", dial, v.page.At)
		}
		if _, err := d.token(t.Context(), "graph"); err != nil {
			t.Errorf("%s: %v", dial, err)
		}
	}
}

// The user who consented renews without an invitation; somebody else's renewal
// waits for the operator.
func TestPartnerRenews(t *testing.T) {
	t.Parallel()
	d := consented(t)
	ctx := t.Context()
	v := d.visit(t, User, emulator.ContosoTenant).open("/partner/renew").reads("type contoso", "for 365 days")
	v.submit("confirm", "fabrikam").reads("That is not “contoso”")
	v.submit("confirm", Partner).microsoft().reads("Consent stored and active", "2; it replaces the earlier one")
	if tok, err := d.token(ctx, "graph"); err != nil || tok.Generation != 2 || userOf(t, tok) != User {
		t.Errorf("%+v, %v", tok, err)
	}
	d.visit(t, secondUser, emulator.ContosoTenant).open("/partner/renew").reads("given by another account, "+User).
		submit("confirm", Partner).microsoft().reads("Proven, and waiting")
	if tok, err := d.token(ctx, "graph"); err != nil || tok.Generation != 2 {
		t.Errorf("%+v, %v", tok, err)
	}
	if _, err := d.Operator.Act(ctx, Partner, "rollback", api.ActRequest{}); err != nil {
		t.Errorf("the generation before the renewal: %v", err)
	}
}

// Another account than the one that began the renewal is refused at the end.
func TestPartnerRenewalOfAnother(t *testing.T) {
	t.Parallel()
	d := consented(t)
	w := d.visit(t, User, emulator.ContosoTenant).open("/partner/renew").submit("confirm", Partner)
	w.user = secondUser
	w.microsoft().reads("That is not the account that began", "Renew in a private window")
	if tok, err := d.token(t.Context(), "graph"); err != nil || tok.Generation != 1 {
		t.Errorf("%+v, %v", tok, err)
	}
}

// A partner withdraws: at once, once, and for good. Neither rolling back nor a
// renewal that was under way brings anything back.
func TestPartnerWithdraws(t *testing.T) {
	t.Parallel()
	d := consented(t)
	ctx := t.Context()
	d.attempt(t, attempt{invited: User, user: User}) // leaves a generation to roll back to
	if _, err := d.token(ctx, "graph"); err != nil {
		t.Fatal(err)
	}
	renewal := d.visit(t, User, emulator.ContosoTenant).open("/partner/renew").submit("confirm", Partner) // now at Microsoft's
	v := d.visit(t, secondUser, emulator.ContosoTenant).open("/partner/withdraw").reads("cannot be undone", "type contoso")
	form := url.Values{"confirm": {Partner}}
	if status, _ := v.post("/partner/withdraw", "cross-site", form); status != http.StatusForbidden {
		t.Errorf("a form from another site: %d", status)
	}
	v.submit("confirm", "Contoso CSP").reads("Nothing was changed")
	if _, err := d.token(ctx, "graph"); err != nil {
		t.Fatalf("before it is confirmed: %v", err)
	}
	v.submit("confirm", Partner).reads("Withdrawn", "It is destroyed", "Microsoft was told nothing", "still good until", "Not asked for")
	if strings.Contains(v.page.Text(), "revoked") {
		t.Errorf("it says revoked: %q", v.page.Text())
	}
	if _, err := d.token(ctx, "graph"); !errors.Is(err, mandate.ErrNoGrant) {
		t.Errorf("a token afterwards: %v", err)
	}
	if status, body := v.post("/partner/withdraw", "same-origin", form); status != http.StatusConflict || !strings.Contains(body, "withdrawn already") {
		t.Errorf("twice: %d", status)
	}
	if _, err := d.Operator.Act(ctx, Partner, "rollback", api.ActRequest{}); !errors.Is(err, mandate.ErrNotFound) {
		t.Errorf("rolled back: %v", err)
	}
	renewal.microsoft().reads("There is no consent any more to renew")
	if _, err := d.token(ctx, "graph"); !errors.Is(err, mandate.ErrNoGrant) {
		t.Errorf("a token after the renewal: %v", err)
	}
	// Who asked for it is on record, and before it was done.
	all, err := d.Operator.Audit(ctx, 200)
	if err != nil {
		t.Fatal(err)
	}
	var details []string
	for _, line := range all {
		var r mandate.Record
		unmarshal(t, line, &r)
		if strings.Contains(r.Detail, "withdraw the grant") || strings.HasPrefix(r.Detail, "withdrawn") {
			details = append(details, r.Detail)
			if strings.Contains(r.Detail, "somebody") && (r.User == nil || r.User.Object.String() != d.objectOf(t, secondUser)) {
				t.Errorf("the record names %+v", r.User)
			}
		}
	}
	if len(details) != 3 || details[0] != "somebody of the partner asks to withdraw the grant" || details[1] != "withdraw the grant" {
		t.Errorf("recorded %q", details)
	}
}

// With Microsoft asked to end the sessions, "revoked" is said after it refused.
func TestPartnerWithdrawsAndRevokes(t *testing.T) {
	t.Parallel()
	d, _ := begin(t, Config{})
	d.permit(t, "Directory.AccessAsUser.All")
	d.attempt(t, attempt{invited: User, user: User})
	v := d.visit(t, User, emulator.ContosoTenant).open("/partner/withdraw")
	status, body := v.post("/partner/withdraw", "same-origin", url.Values{"confirm": {Partner}, "end_sessions": {"yes"}})
	if err := contains(body, "Withdrawn and revoked", "refuses the key: it is revoked", "worthless, because Microsoft refuses it"); status != http.StatusOK || err != nil {
		t.Errorf("%d, %v", status, err)
	}
	if slices.ContainsFunc(d.Emulator.RefreshTokens(), func(r emulator.RefreshToken) bool { return !r.Revoked }) {
		t.Error("Entra still takes a refresh token")
	}
}

// A partner downloads its own records, and whoever has the log's public key
// verifies offline that they are all there is about this partner. A byte that
// was changed is named.
func TestPartnerRecordsVerifyOffline(t *testing.T) {
	t.Parallel()
	d := consented(t)
	ctx := t.Context()
	in, err := d.Operator.Invite(ctx, api.InviteRequest{Name: "fabrikam", Tenant: emulator.FabrikamTenant, DisplayName: "Fabrikam CSP", AnyUser: true})
	if err != nil {
		t.Fatal(err)
	}
	d.follow(t, in.Link, attempt{user: "admin@fabrikam.example"})
	for range 3 {
		for _, partner := range []string{Partner, "fabrikam"} {
			if _, err := d.Operator.Token(ctx, api.TokenRequest{Partner: partner, Audience: "graph", Purpose: Purpose}); err != nil {
				t.Fatal(err)
			}
		}
	}
	state, err := d.Operator.AuditState(ctx)
	if err != nil {
		t.Fatal(err)
	}
	export := d.visit(t, User, emulator.ContosoTenant).download(ctx)
	key, err := note.NewVerifier(state.Key)
	if err != nil {
		t.Fatal(err)
	}
	check := func(export []byte) audit.Verdict {
		t.Helper()
		v, err := audit.Verify(bytes.NewReader(export), audit.Verification{Key: key})
		if err != nil {
			return audit.Verdict{Problem: err.Error(), First: -1}
		}
		return v
	}
	whole := check(export)
	if !whole.OK || whole.Records < 7 || whole.Records >= whole.Size || !strings.Contains(whole.Chain, emulator.ContosoTenant) {
		t.Fatalf("got %+v", whole)
	}
	for _, never := range []string{emulator.FabrikamTenant, User, `"address":"`} {
		if bytes.Contains(export, []byte(never)) {
			t.Errorf("the export has %q", never)
		}
	}
	// One byte in each record, one record less.
	lines := bytes.SplitAfter(export, []byte("\n"))
	damaged, named := 0, map[int64]bool{}
	for i, line := range lines {
		at := bytes.Index(line, []byte(`"purpose":"`+Purpose))
		if at < 0 {
			continue
		}
		damaged++
		changed := slices.Clone(lines)
		changed[i] = bytes.Replace(line, []byte(`"purpose":"`+Purpose), []byte(`"purpose":"x`+Purpose[1:]), 1)
		if v := check(bytes.Join(changed, nil)); v.OK || v.First < 0 {
			t.Errorf("a changed byte in line %d: %+v", i, v)
		} else {
			named[v.First] = true
		}
		if v := check(bytes.Join(slices.Delete(slices.Clone(lines), i, i+1), nil)); v.OK {
			t.Errorf("without line %d: %+v", i, v)
		}
	}
	if damaged < 3 || len(named) != damaged {
		t.Errorf("%d records were changed, and %d are named", damaged, len(named))
	}
}

// download downloads the records as a browser does.
func (v *visitor) download(ctx context.Context) []byte {
	v.t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, v.d.Portal+"/partner/records.jsonl", nil)
	if err != nil {
		v.t.Fatal(err)
	}
	res, err := v.b.http.Do(req)
	if err != nil {
		v.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK || !strings.HasPrefix(res.Header.Get("Content-Disposition"), "attachment") {
		v.t.Fatal(fmt.Errorf("download: %d, %w", res.StatusCode, err))
	}
	return body
}
