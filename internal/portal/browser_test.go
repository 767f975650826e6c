package portal_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/portal"
)

// TestBrowser walks a consent in Chromium, with Entra on another site: what
// the Content-Security-Policy lets a form lead to and which cookie crosses
// sites can be seen nowhere else.
func TestBrowser(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("no Chromium here")
	}
	front := httptest.NewUnstartedServer(nil)
	self := "https://" + front.Listener.Addr().String()
	entra := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<form method=post action="%s/consent/callback/emulator"><input name=state value="%s"><input name=code value="%s"><button>Accept</button></form>`,
			self, html.EscapeString(r.FormValue("state")), goodCode)
	}))
	defer entra.Close()
	cloud := global
	cloud.Name, cloud.Custom, cloud.Authority = "emulator", true, strings.Replace(entra.URL, "127.0.0.1", "localhost", 1)
	cloud.Audiences = map[string]mandate.Endpoint{}
	for name, e := range global.Audiences {
		cloud.Audiences[name] = mandate.Endpoint{Resource: e.Resource, URL: "https://localhost:9443"}
	}
	s := open(t, func(c *portal.Config) {
		c.PublicURL, c.Applications = self, []portal.Application{application(cloud)}
		c.Authorize = func(r portal.AuthorizeRequest) (string, error) { return cloud.Authority + "/?state=" + r.State, nil }
	})
	inv := s.store.invitations[goodToken]
	inv.Partner.Key.Cloud = "emulator"
	s.store.invitations[goodToken] = inv
	front.Config.Handler = s.server.Config.Handler
	front.StartTLS()
	defer front.Close()

	ctx, stop := startChromium(t, chromium, entra)
	defer stop()
	text := func(action ...chromedp.Action[chromedp.Void]) string {
		t.Helper()
		if err := chromedp.Do(ctx, action...); err != nil {
			t.Fatalf("%v\n%s", err, s.log)
		}
		got, err := chromedp.Run(ctx, chromedp.Text("main"))
		if err != nil {
			t.Fatalf("%v\n%s", err, s.log)
		}
		return got
	}
	narrow := func(page string) {
		t.Helper()
		width, err := chromedp.Run(ctx, chromedp.Evaluate[int]("document.documentElement.scrollWidth"))
		if err != nil || width > 360 {
			t.Errorf("%s is %d px wide (%v), want at most 360", page, width, err)
		}
	}
	if got := text(chromedp.EmulateViewport(360, 740), chromedp.Navigate(self+"/i/"+goodToken)); !strings.Contains(got, "asks for your consent") {
		t.Fatalf("the invitation says %s", got)
	}
	narrow("the invitation")
	got := text(chromedp.Click("main button"), chromedp.WaitVisible("input[name=code]"), chromedp.Click("button"), chromedp.WaitVisible(".status"))
	if !strings.Contains(got, "Consent stored and active") || !strings.Contains(got, "alice@contoso.example") {
		t.Fatalf("after the sign-in the browser shows %s\n%s", got, s.log)
	}
	narrow("the receipt")
	if where, err := chromedp.Run(ctx, chromedp.Location()); err != nil || !strings.HasPrefix(where, self+"/consent/") || strings.Contains(where, "?") {
		t.Errorf("the browser ended at %s (%v)", where, err)
	}
}

// startChromium starts a browser that trusts the one key of the test servers.
func startChromium(t *testing.T, path string, srv *httptest.Server) (context.Context, func()) {
	t.Helper()
	spki := sha256.Sum256(srv.Certificate().RawSubjectPublicKeyInfo)
	alloc, stopAlloc := chromedp.NewExecAllocator(t.Context(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox,
		chromedp.Flag("ignore-certificate-errors-spki-list", base64.StdEncoding.EncodeToString(spki[:])))...)
	ctx, stopBrowser := chromedp.NewContext(alloc)
	_, err := chromedp.Run(ctx, chromedp.Title())
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	if err = errors.Join(err, ctx.Err()); err != nil {
		t.Fatalf("start Chromium: %v", err)
	}
	return ctx, func() { cancel(); stopBrowser(); stopAlloc() }
}
