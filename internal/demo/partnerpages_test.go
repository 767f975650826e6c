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
	text := ask(w, chromedp.Text("main"))
	if err := contains(text, "Active", "Contoso CSP", User, "Partner Center", Purpose, "Consent given", "Denied"); err != nil {
		t.Errorf("%v in %q", err, text)
	}
	w.press("Sign out")
	w.do(chromedp.WaitVisible("h1"), chromedp.Navigate(d.Portal+"/partner"), chromedp.WaitVisible("#tenant"))
	if text := ask(w, chromedp.Text("main")); strings.Contains(text, User) {
		t.Errorf("after signing out the page says %q", text)
	}
}
