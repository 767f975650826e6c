// Package portal is the onboarding site: the web pages on which a partner
// reads who asks for what, consents at Microsoft's own sign-in page, and gets
// a receipt or learns what to do next.
//
// The way of one consent: an invitation is opened and read; a form begins a
// sign-in and redirects to Entra; Entra posts its answer back; that answer is
// accepted once, and only from the browser that began; the code is handed to
// the [Consenter]; and the browser is redirected to a clean URL that shows
// how it ended. No token ever reaches a browser.
package portal

import (
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

//go:embed templates site.css icon.svg
var files embed.FS

// A Config says what a [Portal] serves and whom it asks. Every field without
// a stated default is required.
type Config struct {
	// PublicURL is the site's origin, "https://consent.example.com". The
	// redirect URI is made of it alone, never of what a request says.
	PublicURL string

	Applications []Application
	Invitations  Invitations
	Transactions Transactions
	Outcomes     Outcomes
	Consenter    Consenter

	// People, Records and Grants are for the pages on which a partner sees
	// what was done with its consent, renews it and withdraws it. All are nil
	// if there are none.
	People  People
	Records Records
	Grants  Grants

	// Authorize returns the URL of Entra's sign-in page.
	Authorize func(AuthorizeRequest) (string, error)

	// Callback reads an error that Entra posted back.
	Callback func(errorCode, description string) *mandate.Refusal

	// Limit holds each client address to so many requests that ask the
	// database; zero means 30 at once and one per second.
	Limit web.Limit

	TrustedProxies web.Proxies // whose X-Forwarded-For counts; none by default

	// Emulated puts a banner on every page. An application in a custom cloud
	// does so too.
	Emulated bool

	Log *slog.Logger
}

// A Portal serves the onboarding site.
type Portal struct {
	cfg   Config
	apps  map[appKey]*Application
	pages *web.Pages
	css   web.Asset
	icon  web.Asset
	limit *web.Limiter
}

// appKey is what a grant's key says of its application.
type appKey struct {
	cloud string
	id    mandate.AppID
}

// maxClients is how many client addresses the limiter remembers.
const maxClients = 20000

// New returns a portal, or an error naming what is wrong with c.
func New(c Config) (*Portal, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("portal: %w", err)
	}
	if c.Limit == (web.Limit{}) {
		c.Limit = web.Limit{Every: time.Second, Burst: 30}
	}
	p := &Portal{cfg: c, apps: make(map[appKey]*Application), limit: web.NewLimiter(c.Limit, maxClients)}
	for _, app := range c.Applications {
		a, err := app.prepare()
		if err != nil {
			return nil, fmt.Errorf("portal: application %s: %w", app.ID, err)
		}
		key := appKey{a.Cloud.Name, a.ID}
		if p.apps[key] != nil {
			return nil, fmt.Errorf("portal: application %s is there twice", a.ID)
		}
		p.apps[key] = a
		p.cfg.Emulated = p.cfg.Emulated || a.Cloud.Custom
	}
	return p, p.load()
}

// load reads what is embedded.
func (p *Portal) load() error {
	folder, err := fs.Sub(files, "templates")
	if err != nil {
		return err
	}
	if p.pages, err = web.ParsePages(folder, template.FuncMap{"when": when, "day": func(t time.Time) string { return t.UTC().Format("2 January 2006") }}); err != nil {
		return err
	}
	css, err := files.ReadFile("site.css")
	if err != nil {
		return err
	}
	icon, err := files.ReadFile("icon.svg")
	if err != nil {
		return err
	}
	p.css = web.NewAsset("site.css", css, "text/css; charset=utf-8")
	p.icon = web.NewAsset("icon.svg", icon, "image/svg+xml")
	return nil
}

// check reports the first thing wrong with c.
func (c *Config) check() error {
	u, err := url.Parse(c.PublicURL)
	if err != nil || u.Host == "" || c.PublicURL != "https://"+u.Host {
		return mandate.Invalid("public_url", "%q must be https://host or https://host:port, and nothing else", c.PublicURL)
	}
	if c.Invitations == nil || c.Transactions == nil || c.Outcomes == nil || c.Consenter == nil {
		return errors.New("the fields Invitations, Transactions, Outcomes and Consenter are required")
	}
	if (c.People == nil) != (c.Records == nil) || (c.People == nil) != (c.Grants == nil) {
		return errors.New("the fields People, Records and Grants belong together")
	}
	if c.Authorize == nil || c.Callback == nil || c.Log == nil {
		return errors.New("the fields Authorize, Callback and Log are required")
	}
	if len(c.Applications) == 0 {
		return errors.New("there is no application to consent to")
	}
	return c.checkClouds()
}

// checkClouds makes sure that a cloud's name, which is all that the callback
// path has, stands for one authority.
func (c *Config) checkClouds() error {
	authorities := map[string]string{}
	for _, a := range c.Applications {
		name := a.Cloud.Name
		if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return mandate.Invalid("cloud", "the name %q must be of a-z, 0-9 and -", name)
		}
		if had, ok := authorities[name]; ok && had != a.Cloud.Authority {
			return mandate.Invalid("cloud", "%q is both %s and %s", name, had, a.Cloud.Authority)
		}
		authorities[name] = a.Cloud.Authority
	}
	return nil
}

// prepare returns a copy of a with its audiences in order and its permissions
// explained, or an error naming what a partner would miss.
func (a Application) prepare() (*Application, error) {
	if a.ID.IsZero() || a.Name == "" || a.Publisher == "" {
		return nil, errors.New("an ID, a name and a publisher are required: partners must know who asks")
	}
	if err := a.Cloud.Check(); err != nil {
		return nil, err
	}
	order := []mandate.Audience{a.Cloud.Audiences[mandate.PartnerCenter].Resource, a.Cloud.Audiences[mandate.Graph].Resource}
	for _, first := range order {
		if !slices.Contains(a.Audiences, first) {
			return nil, mandate.Invalid("audiences", "must include %s", first)
		}
	}
	for _, audience := range a.Audiences {
		if !slices.Contains(order, audience) {
			order = append(order, audience)
		}
	}
	a.Audiences = order
	return &a, a.explain()
}

// Handler returns the site. It wants to be at the root of its host.
func (p *Portal) Handler() http.Handler {
	mux := http.NewServeMux()
	p.route(mux, "GET", "/{$}", p.front)
	p.route(mux, "GET", "/i/{token}", p.limited(p.invitation))
	p.route(mux, "POST", "/consent", p.limited(p.begin))
	p.route(mux, "GET", "/consent/{id}", p.limited(p.result))
	if p.cfg.People != nil {
		p.partnerRoutes(mux)
	}
	guard := http.NewCrossOriginProtection()
	for _, cloud := range p.clouds() {
		p.route(mux, "POST", callbackPath(cloud), p.limited(p.callback(cloud)))
		// Entra posts from its own site; state and cookie are the guard here.
		guard.AddInsecureBypassPattern("POST " + callbackPath(cloud))
	}
	guard.SetDenyHandler(web.Page(p.cfg.Log, p.fail, func(w http.ResponseWriter, _ *http.Request) error {
		return p.message(w, http.StatusForbidden, crossOrigin)
	}))
	p.static(mux)
	mux.Handle("/", web.Page(p.cfg.Log, p.fail, func(w http.ResponseWriter, _ *http.Request) error {
		return p.message(w, http.StatusNotFound, nothingHere)
	}))
	edge := web.Edge{Log: p.cfg.Log, Proxies: p.cfg.TrustedProxies}
	return edge.Wrap(web.Secure(guard.Handler(mux)))
}

// static adds what is the same for everybody.
func (p *Portal) static(mux *http.ServeMux) {
	mux.Handle("GET "+p.css.Path, p.css)
	mux.Handle("GET "+p.icon.Path, p.icon)
	mux.HandleFunc("GET /favicon.ico", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, p.icon.Path, http.StatusFound)
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /robots.txt", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("User-agent: *\nDisallow: /\n"))
	})
}

// route adds a page, and for every other method a page that says so.
func (p *Portal) route(mux *http.ServeMux, method, path string, h web.Handler) {
	mux.Handle(method+" "+path, web.Page(p.cfg.Log, p.fail, h))
	mux.Handle(path, web.Page(p.cfg.Log, p.fail, func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Allow", method)
		return p.message(w, http.StatusMethodNotAllowed, wrongMethod)
	}))
}

// limited holds a client to the configured limit.
func (p *Portal) limited(h web.Handler) web.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := p.limit.Allow(web.AddressKey(web.Address(r.Context()))); err != nil {
			return err
		}
		return h(w, r)
	}
}

// clouds returns the name of each cloud once.
func (p *Portal) clouds() []string {
	var names []string
	for key := range p.apps {
		if !slices.Contains(names, key.cloud) {
			names = append(names, key.cloud)
		}
	}
	return names
}

// callbackPath is one path per issuer, so that an answer cannot be taken for
// another issuer's.
func callbackPath(cloud string) string { return "/consent/callback/" + cloud }

// application returns the application that a grant is for. A key that names
// none is a fault of the wiring.
func (p *Portal) application(k mandate.GrantKey) (*Application, error) {
	if a := p.apps[appKey{k.Cloud, k.Application}]; a != nil {
		return a, nil
	}
	return nil, fmt.Errorf("application %s in cloud %q is not configured", k.Application, k.Cloud)
}
