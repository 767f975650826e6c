package demo

import (
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/emulator"
)

// signIn goes through the emulator's pages.
func (w *window) signIn(user string) {
	w.t.Helper()
	w.do(chromedp.WaitVisible("#other"), chromedp.SendKeys("#other", user))
	w.press("Next")
	w.do(chromedp.WaitVisible("#page-signin"))
	w.press("Sign in")
	w.do(chromedp.WaitVisible("#page-mfa"), chromedp.SendKeys("#otp", ask(w, chromedp.Text("#otp-shown"))), chromedp.Click("#mfa-verify"))
}

// reads checks what a person reads on the page.
func (w *window) reads(all ...string) {
	w.t.Helper()
	if text := ask(w, chromedp.Text("main")); contains(text, all...) != nil {
		w.t.Error(contains(text, all...))
	}
}

// What was done with a consent, as its partner sees it in a real browser.
func TestBrowserPartnerPages(t *testing.T) {
	d, _ := begin(t, Config{})
	if page := d.attempt(t, attempt{invited: User, user: User}); page == nil {
		t.Fatal("no consent")
	}
	for _, r := range []api.TokenRequest{
		{Partner: Partner, Audience: "graph", Purpose: Purpose},
		{Partner: Partner, Audience: "partnercenter", Purpose: Purpose},
	} {
		if _, err := d.Operator.Token(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = d.Operator.Token(t.Context(), api.TokenRequest{Partner: Partner, Audience: "graph", Purpose: "curiosity"})
	for i := range 40 { // more than a page, though the last ten are shown as one
		tenant := emulator.AdatumTenant
		if i < 30 && i%2 == 0 {
			tenant = emulator.ContosoTenant
		}
		if _, err := d.Operator.Token(t.Context(), api.TokenRequest{Partner: Partner, Tenant: tenant, Audience: "graph", Purpose: Purpose}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Operator.Call(t.Context(), api.CallRequest{Partner: Partner, Audience: "partnercenter", Method: "GET", Path: "/v1/customers/" + emulator.AdatumTenant, Purpose: Purpose}); err != nil {
		t.Fatal(err)
	}

	w := openWindow(t, d.Emulator.CA().SPKI())
	w.do(chromedp.Navigate(d.Portal))
	w.press("See what was done")
	w.do(chromedp.WaitVisible("#tenant"))
	w.look("partner-signin")
	w.do(chromedp.SendKeys("#tenant", "contoso"))
	w.press("Sign in at Microsoft")
	w.do(chromedp.WaitVisible("[role=alert]"), chromedp.SendKeys("#tenant", emulator.ContosoTenant))
	w.press("Sign in at Microsoft")
	w.signIn(User)
	if found := ask(w, chromedp.Evaluate[bool](`!!document.querySelector("#page-consent")`)); found {
		w.look("partner-entra-consent")
		w.press("Accept")
	}
	w.do(chromedp.WaitVisible("#grant"))
	if at := ask(w, chromedp.Location()); at != d.Portal+"/partner" {
		t.Errorf("the sign-in ended at %s", at)
	}
	w.look("partner")
	w.reads("Active", "Contoso CSP", User, "Partner Center", Purpose, "Renew the consent", "this site itself", "Adatum", "11 times", "Older")
	w.press("Older")
	w.do(chromedp.WaitVisible("#newest"))
	w.reads("Consent given", "Denied")

	w.do(chromedp.Navigate(d.Portal+"/partner"), chromedp.WaitVisible("#grant"))
	w.press("What of this was used")
	w.do(chromedp.WaitVisible("#read"))
	w.look("partner-usage")
	w.reads("Azure Resource Manager", "Never used", "Not used", "Adatum")
	w.press("Adatum")
	w.do(chromedp.WaitVisible("#all-customers"))
	w.look("partner-usage-customer")

	w.do(chromedp.Navigate(d.Portal+"/partner"), chromedp.WaitVisible("#grant"))
	w.press("Renew the consent")
	w.do(chromedp.WaitVisible("#confirm"))
	w.look("partner-renew")
	w.do(chromedp.SendKeys("#confirm", Partner))
	w.press("Continue to Microsoft")
	w.do(chromedp.WaitVisible("#page-signin"))
	w.press("Sign in")
	w.do(chromedp.WaitVisible("#page-mfa"), chromedp.SendKeys("#otp", ask(w, chromedp.Text("#otp-shown"))), chromedp.Click("#mfa-verify"))
	w.do(chromedp.WaitVisible("#consent"))
	w.reads("Consent stored and active", "it replaces the earlier one")
	w.look("partner-renewed")

	w.do(chromedp.Navigate(d.Portal+"/partner"), chromedp.WaitVisible("#grant"))
	w.press("Withdraw the consent")
	w.do(chromedp.WaitVisible("#confirm"))
	w.look("partner-withdraw")
	w.do(chromedp.SendKeys("#confirm", "Contoso CSP"))
	w.press("Withdraw the consent")
	w.do(chromedp.WaitVisible("[role=alert]"))
	w.look("partner-withdraw-wrong")
	w.do(chromedp.SendKeys("#confirm", Partner))
	w.press("Withdraw the consent")
	w.do(chromedp.WaitVisible("#report"))
	w.look("partner-withdrawn")
	w.reads("It is destroyed", "Microsoft was told nothing", "still good until", "Not asked for")
	w.press("Back to your pages")
	w.do(chromedp.WaitVisible("#uses"))
	w.look("partner-after")
	w.reads("Withdrawn: nothing can be done with it", "can do nothing on behalf of", "somebody of your organisation asks to withdraw the consent",
		"withdrawn. The key that we kept: destroyed; at Microsoft: not asked for; to take back passes that were handed out: not possible (", " still good); to destroy copies out of our reach: not possible")
	if text := ask(w, chromedp.Text("main")); strings.Contains(text, "grant") {
		t.Errorf("a partner reads of a grant: %s", text)
	}
	w.press("Sign out")
	w.do(chromedp.WaitVisible("main:not(:has(#uses)) h1"), chromedp.Navigate(d.Portal+"/partner"), chromedp.WaitVisible("#tenant"))
	if text := ask(w, chromedp.Text("main")); strings.Contains(text, User) {
		t.Errorf("after signing out the page says %q", text)
	}
}
