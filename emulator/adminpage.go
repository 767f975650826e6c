package emulator

import (
	"embed"
	"io/fs"
	"net/http"
)

// pageFiles are the page on which a person turns the dials, and the
// description of the admin API that the page uses.
//
//go:embed page openapi.json
var pageFiles embed.FS

// pagePolicy lets the page run its own script, which talks to the admin API and
// to nothing else.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// page serves the page, and the description of the admin API. Neither needs the
// header that changes need: what they show is the same in every emulator.
func page(mux *http.ServeMux) {
	files, err := fs.Sub(pageFiles, "page")
	if err != nil {
		panic(err) // the path is a constant
	}
	serve := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Security-Policy", pagePolicy)
			w.Header().Set("X-Content-Type-Options", "nosniff")
			w.Header().Set("Cache-Control", "no-store")
			h.ServeHTTP(w, r)
		})
	}
	mux.Handle("GET /{$}", serve(http.RedirectHandler("/emulator/page/", http.StatusFound)))
	mux.Handle("GET /emulator/page/", serve(http.StripPrefix("/emulator/page", http.FileServerFS(files))))
	mux.Handle("GET /emulator/openapi.json", serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeFileFS(w, r, pageFiles, "openapi.json")
	})))
}
