package web

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strings"
)

// Pages are a site's HTML templates. Each file but base.html is a page, named
// without its extension, which defines the blocks that base.html leaves open.
type Pages struct {
	of map[string]*template.Template
}

// ParsePages parses base.html and every other *.html of a folder.
func ParsePages(files fs.FS, funcs template.FuncMap) (*Pages, error) {
	base, err := template.New("base.html").Funcs(funcs).Option("missingkey=error").ParseFS(files, "base.html")
	if err != nil {
		return nil, fmt.Errorf("parse templates: %w", err)
	}
	names, err := fs.Glob(files, "*.html")
	if err != nil {
		return nil, fmt.Errorf("list templates: %w", err)
	}
	p := &Pages{make(map[string]*template.Template)}
	for _, name := range names {
		if name == "base.html" {
			continue
		}
		t, err := template.Must(base.Clone()).ParseFS(files, name)
		if err != nil {
			return nil, fmt.Errorf("parse templates: %w", err)
		}
		p.of[strings.TrimSuffix(name, ".html")] = t
	}
	return p, nil
}

// Render executes the page in full before it writes anything, so that a
// template that fails halfway becomes an error page and not half a page.
func (p *Pages) Render(w http.ResponseWriter, status int, page string, data any) error {
	t, ok := p.of[page]
	if !ok {
		return fmt.Errorf("no page %q", page)
	}
	var buf bytes.Buffer
	if err := t.ExecuteTemplate(&buf, "base.html", data); err != nil {
		return fmt.Errorf("render %s: %w", page, err)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = buf.WriteTo(w) // too late to tell anybody
	return nil
}

// Secure sets the headers that every answer of a site for people has, on
// whatever next answers: nothing cached, framed, sniffed, indexed or referred,
// no script, and forms that lead only to the site itself.
func Secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("Cache-Control", "no-store")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=()")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Strict-Transport-Security", "max-age=63072000")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("X-Robots-Tag", "noindex, nofollow")
		next.ServeHTTP(w, r)
	})
}

// An Asset is a file that never changes under its path, because the path has
// its hash in it.
type Asset struct {
	Path string // to link to, such as "/assets/site.1f2e3d4c5b6a.css"
	data []byte
	mime string
}

// NewAsset returns an asset of the given name, content and media type.
func NewAsset(name string, data []byte, media string) Asset {
	sum := sha256.Sum256(data)
	ext := path.Ext(name)
	return Asset{"/assets/" + strings.TrimSuffix(name, ext) + "." + hex.EncodeToString(sum[:6]) + ext, data, media}
}

// ServeHTTP answers with the asset and lets it be kept for ever.
func (a Asset) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", a.mime)
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	_, _ = w.Write(a.data)
}
