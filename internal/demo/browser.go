package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/html"
)

// A Browser walks real pages as a person would: it keeps cookies, follows
// redirects and refreshes, and submits forms with everything that they contain. It runs no
// script, so it submits by itself the form that Entra's answer consists of.
type Browser struct{ http *http.Client }

// NewBrowser returns a browser that trusts what transport trusts.
func NewBrowser(transport http.RoundTripper) *Browser {
	jar, _ := cookiejar.New(nil) // without options it cannot fail
	return &Browser{&http.Client{Transport: transport, Jar: jar, Timeout: 30 * time.Second}}
}

// A Page is what the browser has come to.
type Page struct {
	At     *url.URL // after redirects
	Status int
	root   *html.Node
}

// Open follows a link.
func (b *Browser) Open(ctx context.Context, address string) (*Page, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	return b.do(req)
}

func (b *Browser) do(req *http.Request) (*Page, error) {
	res, err := b.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	root, err := html.Parse(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	if target, ok := strings.CutPrefix(res.Header.Get("Refresh"), "0;url="); ok {
		return b.Open(req.Context(), target)
	}
	p := &Page{res.Request.URL, res.StatusCode, root}
	if form := p.find("form", "form_post"); form != nil {
		return b.Submit(req.Context(), p, "form_post", "", "")
	}
	return p, nil
}

// Submit submits the form with that id, pressing the button or filling in the
// field with that name and value.
func (b *Browser) Submit(ctx context.Context, p *Page, form, name, value string) (*Page, error) {
	f := p.find("form", form)
	if f == nil {
		return nil, fmt.Errorf("%q at %s has no form %q", p.Title(), p.At.Path, form)
	}
	fields := url.Values{}
	for n := range f.Descendants() {
		if n.Type == html.ElementNode && n.Data == "input" && attr(n, "type") == "hidden" {
			fields.Set(attr(n, "name"), attr(n, "value"))
		}
	}
	if name != "" {
		fields.Set(name, value)
	}
	action, err := p.At.Parse(attr(f, "action"))
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, action.String(), strings.NewReader(fields.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	site := "cross-site"
	if action.Host == p.At.Host {
		site = "same-origin"
	}
	req.Header.Set("Sec-Fetch-Site", site)
	req.Header.Set("Origin", p.At.Scheme+"://"+p.At.Host)
	return b.do(req)
}

// find returns the first element of that kind with that id; an empty id
// matches any.
func (p *Page) find(kind, id string) *html.Node {
	for n := range p.root.Descendants() {
		if n.Type == html.ElementNode && (kind == "" || n.Data == kind) && (id == "" || attr(n, "id") == id) {
			return n
		}
	}
	return nil
}

// Text returns what a person reads on the page.
func (p *Page) Text() string { return text(p.root) }

// Title returns the page's main heading.
func (p *Page) Title() string {
	if h := p.find("h1", ""); h != nil {
		return text(h)
	}
	return fmt.Sprintf("status %d", p.Status)
}

func text(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data)
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// SignIn goes through the emulator's pages as user, accepting what is asked,
// until they lead back. It tells step what it does.
func (b *Browser) SignIn(ctx context.Context, p *Page, login, user string, step func(string)) (*Page, error) {
	return b.signIn(ctx, p, login, user, "accept", step)
}

func (b *Browser) signIn(ctx context.Context, p *Page, login, user, decision string, step func(string)) (*Page, error) {
	for range 10 {
		if p.At.Scheme+"://"+p.At.Host != login {
			return p, nil
		}
		main := p.find("main", "")
		if main == nil {
			return nil, fmt.Errorf("the sign-in ended at %q", p.Title())
		}
		var err error
		switch id := attr(main, "id"); id {
		case "page-account":
			step("choose the account " + user)
			p, err = b.Submit(ctx, p, "account-other", "account", user)
		case "page-signin":
			if name, _, _ := strings.Cut(user, "@"); !strings.Contains(text(main), name) {
				step("not the suggested account")
				p, err = b.Submit(ctx, p, "signin", "signin", "other")
				break
			}
			step("sign in")
			p, err = b.Submit(ctx, p, "signin", "signin", "yes")
		case "page-mfa":
			step("prove a second factor")
			p, err = b.Submit(ctx, p, "mfa", "otp", text(p.find("", "otp-shown")))
		case "page-consent":
			step("read the permissions and " + decision)
			p, err = b.Submit(ctx, p, "consent", "decision", decision)
		case "page-approval":
			step("an administrator is needed; go back")
			p, err = b.Submit(ctx, p, "approval", "decision", "return")
		default:
			return nil, fmt.Errorf("the sign-in stopped at %q: %s", p.Title(), text(main))
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, errors.New("the sign-in does not end")
}
