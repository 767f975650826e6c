package demo

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/emulator"
)

var screenshots = flag.String("screenshots", "", "keep screenshots in this directory; docs/images has those of a run")

// A window is one of a real browser's.
type window struct {
	t   *testing.T
	ctx context.Context
}

// openWindow starts Debian's Chromium. It trusts the one authority whose key
// has the hash spki, if that is not empty, and whatever a system does.
func openWindow(t *testing.T, spki string) *window {
	t.Helper()
	path := "/usr/bin/chromium"
	if _, err := os.Stat(path); err != nil {
		t.Fatal("Chromium is needed: apt-get install chromium (./test does it)")
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("ignore-certificate-errors-spki-list", spki), chromedp.UserDataDir(t.TempDir()))
	if os.Getuid() == 0 {
		opts = append(opts, chromedp.NoSandbox)
	}
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), opts...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if _, err := chromedp.Run(ctx, chromedp.Title()); err != nil { // starts it; it lives as long as ctx
		t.Fatal(err)
	}
	return &window{t, ctx}
}

func (w *window) do(steps ...chromedp.Action[chromedp.Void]) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, 60*time.Second)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		w.t.Fatal(err)
	}
}

func ask[T any](w *window, a chromedp.Action[T]) T {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, 60*time.Second)
	defer cancel()
	v, err := chromedp.Run(ctx, a)
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

// dress changes what the window looks like to a page.
func (w *window) dress(width int64, scheme string) {
	w.t.Helper()
	w.do(chromedp.EmulateViewport(width, 800), chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	}))
}

// look checks that the page fits, wide and narrow, light and dark, and keeps
// what it looks like.
func (w *window) look(name string) {
	w.t.Helper()
	for _, dress := range []struct {
		suffix string
		width  int64
		scheme string
	}{{"", 1000, "light"}, {"-dark", 1000, "dark"}, {"-narrow", 360, "light"}, {"-narrow-dark", 360, "dark"}} {
		w.dress(dress.width, dress.scheme)
		if got := ask(w, chromedp.Evaluate[int64]("document.documentElement.scrollWidth")); got > dress.width {
			w.t.Errorf("%s is %d px wide in a window of %d", name, got, dress.width)
		}
		if lang := ask(w, chromedp.Evaluate[string]("document.documentElement.lang")); lang == "" {
			w.t.Errorf("%s does not say its language", name)
		}
		if *screenshots == "" {
			continue
		}
		png := ask(w, chromedp.FullScreenshot(100))
		if err := os.WriteFile(filepath.Join(*screenshots, name+dress.suffix+".png"), png, 0o644); err != nil {
			w.t.Fatal(err)
		}
	}
	w.dress(1000, "light")
}

// press tabs to the control that says label, and presses Enter there: what
// cannot be reached so is of no use without a mouse.
func (w *window) press(label string) {
	w.t.Helper()
	for range 60 {
		w.do(chromedp.KeyEvent(kb.Tab))
		focused := ask(w, chromedp.Evaluate[string](`(e => e && e !== document.body ? (e.innerText || e.value || e.getAttribute("aria-label") || "") : "")(document.activeElement)`))
		if strings.Contains(focused, label) {
			ring := ask(w, chromedp.Evaluate[string](`getComputedStyle(document.activeElement).outlineStyle`))
			if ring == "none" {
				w.t.Errorf("%q shows no focus", label)
			}
			w.do(chromedp.KeyEvent(kb.Enter))
			return
		}
	}
	w.t.Fatalf("%q cannot be reached with the Tab key: %s", label, ask(w, chromedp.Text("body")))
}

// The whole consent and a token, in a real browser, by keyboard.
func TestBrowser(t *testing.T) {
	d, _ := begin(t, Config{})
	in, err := d.Invite(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w := openWindow(t, d.Emulator.CA().SPKI())
	w.do(chromedp.Navigate(d.Portal))
	w.look("front")
	w.do(chromedp.Navigate(in.Link))
	w.look("invitation")
	w.press("Continue to Microsoft")
	w.do(chromedp.WaitVisible("#page-signin"))
	w.look("entra-signin")
	w.press("Sign in")
	w.do(chromedp.WaitVisible("#page-mfa"), chromedp.SendKeys("#otp", ask(w, chromedp.Text("#otp-shown"))))
	w.look("entra-mfa")
	w.do(chromedp.Click("#mfa-verify"), chromedp.WaitVisible("#page-consent"))
	w.look("entra-consent")
	w.press("Accept")
	w.do(chromedp.WaitVisible(".status.good"))
	if at := ask(w, chromedp.Location()); !strings.HasPrefix(at, d.Portal+"/consent/") || strings.Contains(at, "code") {
		t.Errorf("the consent ended at %s", at)
	}
	w.look("receipt")
	if text := ask(w, chromedp.Text("main")); contains(text, "Contoso CSP", "Consent stored and active", "SHA-256") != nil {
		t.Errorf("the receipt says %q", text)
	}
	tok, err := d.Operator.Token(t.Context(), api.TokenRequest{Partner: Partner, Audience: "graph", Purpose: Purpose})
	if err != nil || tok.Access.IsZero() {
		t.Errorf("token: %v", err)
	}

	// A refusal, and an invitation that is used up.
	w.do(chromedp.Navigate(in.Link))
	w.look("invitation-used")
	if err := d.Emulator.RemoveConsent(emulator.ContosoTenant, emulator.ApplicationID, ""); err != nil {
		t.Fatal(err)
	}
	again, err := d.Invite(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.do(chromedp.Navigate(again.Link))
	w.press("Continue to Microsoft")
	w.do(chromedp.WaitVisible("#page-signin"))
	w.press("Sign in")
	w.do(chromedp.WaitVisible("#page-mfa"), chromedp.SendKeys("#otp", ask(w, chromedp.Text("#otp-shown"))), chromedp.Click("#mfa-verify"))
	w.do(chromedp.WaitVisible("#page-consent"), chromedp.Click("#consent-cancel"), chromedp.WaitVisible("#next"))
	w.look("refusal-declined")
}

// The browser of these tests trusts one key, and not every certificate.
func TestBrowserTrustsOneKey(t *testing.T) {
	d, _ := begin(t, Config{})
	w := openWindow(t, "")
	if _, err := chromedp.Run(w.ctx, chromedp.NavigateResponse(d.Portal)); err == nil || !strings.Contains(err.Error(), "ERR_CERT") {
		t.Errorf("without the key's hash the page opened: %v", err)
	}
}
