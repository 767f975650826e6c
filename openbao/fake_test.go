package openbao

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/mandate-sam/mandate"
)

// A fake stands in for a server. It is written from the API documentation of
// OpenBao ("Transit secrets engine", "KV secrets engine - version 2", "Token
// auth method", "AppRole auth method", "Kubernetes auth method") and has just
// what this package asks for. No test here has met a real server.
type fake struct {
	*httptest.Server

	mu       sync.Mutex // guards everything below
	tokens   map[string]int64
	renewed  []string
	logins   []map[string]string
	lease    int64 // of logins and renewals, in seconds
	forbid   []string
	say      []answer // given first, one for each request
	requests []*http.Request
	keys     map[string]*fakeKey
	secrets  map[string]*fakeSecret
	lifetime string // deletion_time of new versions
	seen     []string
}

type answer struct {
	status int
	header string // Retry-After, or Location
	errors []string
}

type fakeKey struct {
	aead     bool
	min      int
	versions []cipher.AEAD
}

type fakeSecret struct {
	current  int64
	versions map[int64]*fakeVersion
}

type fakeVersion struct {
	data      map[string]any
	deleted   bool
	destroyed bool
}

func newFake(t *testing.T) *fake {
	f := &fake{tokens: map[string]int64{"CANARY-token": 3600}, lease: 3600, keys: map[string]*fakeKey{}, secrets: map[string]*fakeSecret{}}
	f.Server = httptest.NewTLSServer(f)
	t.Cleanup(f.Close)
	f.rotate("kek", true)
	return f
}

func (f *fake) rotate(name string, aead bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.keys[name] == nil {
		f.keys[name] = &fakeKey{aead: aead, min: 1}
	}
	f.keys[name].versions = append(f.keys[name].versions, newCipher())
}

func newCipher() cipher.AEAD {
	b, _ := aes.NewCipher([]byte(rand.Text() + "......")[:32])
	g, _ := cipher.NewGCMWithRandomNonce(b)
	return g
}

// with changes the fake, as others change a server.
func (f *fake) with(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// renewals returns the tokens that were renewed so far.
func (f *fake) renewals() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.renewed)
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, r.Clone(r.Context()))
	f.seen = append(f.seen, r.Method+" "+r.URL.Path)
	if len(f.say) > 0 {
		a := f.say[0]
		f.say = f.say[1:]
		if a.status != 0 {
			w.Header().Set("Retry-After", a.header)
			w.Header().Set("Location", a.header)
			refuse(w, a.status, a.errors...)
			return
		}
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/v1/")
	var in map[string]any
	if b, _ := io.ReadAll(r.Body); len(b) > 0 && json.Unmarshal(b, &in) != nil {
		refuse(w, 400, "error parsing JSON")
		return
	}
	switch {
	case !ok || r.Header.Get("X-Vault-Request") != "true":
		refuse(w, 404)
	case strings.HasPrefix(path, "auth/") && strings.HasSuffix(path, "/login"):
		f.login(w, path, in)
	case f.tokens[r.Header.Get("X-Vault-Token")] == 0:
		refuse(w, 403, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n")
	case slices.ContainsFunc(f.forbid, func(s string) bool { return strings.HasPrefix(r.Method+" "+path, s) }):
		refuse(w, 403, "1 error occurred:\n\t* permission denied\n\n")
	default:
		f.serve(w, r, strings.Split(path, "/"), in)
	}
}

func refuse(w http.ResponseWriter, status int, errs ...string) {
	reply(w, status, map[string]any{"errors": append([]string{}, errs...)})
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

func data(w http.ResponseWriter, v any) {
	reply(w, 200, map[string]any{"request_id": "r", "data": v})
}

func (f *fake) login(w http.ResponseWriter, path string, in map[string]any) {
	got := map[string]string{"path": path}
	for k, v := range in {
		got[k] = fmt.Sprint(v)
	}
	f.logins = append(f.logins, got)
	if got["secret_id"] != "CANARY-secret" && got["jwt"] != "CANARY-jwt" {
		refuse(w, 400, "invalid role or secret ID "+got["secret_id"])
		return
	}
	t := fmt.Sprintf("CANARY-login-%d", len(f.logins))
	f.tokens[t] = f.lease
	reply(w, 200, map[string]any{"auth": map[string]any{"client_token": t, "lease_duration": f.lease, "renewable": true}})
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request, path []string, in map[string]any) {
	switch full := strings.Join(path, "/"); {
	case full == "auth/token/renew-self" && r.Method == "POST":
		t := r.Header.Get("X-Vault-Token")
		f.renewed = append(f.renewed, t)
		reply(w, 200, map[string]any{"auth": map[string]any{"client_token": t, "lease_duration": f.lease, "renewable": f.lease > 10}})
	case len(path) == 3 && path[0] == "transit" && r.Method == "POST":
		f.transit(w, path[1], path[2], in)
	case len(path) == 4 && path[0] == "transit" && path[1] == "keys" && path[3] == "rotate" && r.Method == "POST" && f.keys[path[2]] != nil:
		k := f.keys[path[2]]
		k.versions = append(k.versions, newCipher())
		w.WriteHeader(http.StatusNoContent)
	case len(path) == 3 && path[0] == "transit" && path[1] == "keys" && r.Method == "GET" && f.keys[path[2]] != nil:
		data(w, map[string]any{"name": path[2], "latest_version": len(f.keys[path[2]].versions)})
	case len(path) == 4 && path[0] == "kv" && path[2] == "grants":
		f.kv(w, r, path[1], path[3], in)
	default:
		refuse(w, 404, "no handler for route \""+full+"\"")
	}
}

func (f *fake) transit(w http.ResponseWriter, op, name string, in map[string]any) {
	k := f.keys[name]
	if k == nil {
		refuse(w, 400, "encryption key not found")
		return
	}
	ad, _ := in["associated_data"].(string)
	additional, err := base64.StdEncoding.DecodeString(ad)
	if ad != "" && !k.aead {
		refuse(w, 400, "'[0].associated_data' provided for non-AEAD cipher suite rsa-2048")
		return
	}
	switch op {
	case "encrypt":
		plain, perr := base64.StdEncoding.DecodeString(in["plaintext"].(string))
		if errors.Join(err, perr) != nil {
			refuse(w, 400, "illegal base64 data")
			return
		}
		n := len(k.versions)
		box := k.versions[n-1].Seal(nil, nil, plain, additional)
		data(w, map[string]any{"ciphertext": fmt.Sprintf("vault:v%d:%s", n, base64.StdEncoding.EncodeToString(box)), "key_version": n})
	case "decrypt":
		parts := strings.SplitN(in["ciphertext"].(string), ":", 3)
		n, _ := strconv.Atoi(strings.TrimPrefix(parts[1], "v"))
		if n < k.min {
			refuse(w, 400, "ciphertext or signature version is disallowed by policy (too old)")
			return
		}
		box, _ := base64.StdEncoding.DecodeString(parts[2])
		if n < 1 || n > len(k.versions) {
			refuse(w, 400, "invalid ciphertext: version is too new")
			return
		}
		plain, err := k.versions[n-1].Open(nil, nil, box, additional)
		if err != nil {
			refuse(w, 400, "invalid ciphertext: unable to decrypt")
			return
		}
		data(w, map[string]any{"plaintext": base64.StdEncoding.EncodeToString(plain)})
	default:
		refuse(w, 404)
	}
}

func (f *fake) kv(w http.ResponseWriter, r *http.Request, what, name string, in map[string]any) {
	s := f.secrets[name]
	switch r.Method + " " + what {
	case "POST data":
		f.write(w, name, in)
	case "GET data":
		f.read(w, s, r.URL.Query().Get("version"))
	case "GET metadata":
		if s == nil {
			refuse(w, 404)
			return
		}
		versions := map[string]any{}
		for n, v := range s.versions {
			versions[strconv.FormatInt(n, 10)] = v.metadata(n)
		}
		data(w, map[string]any{"current_version": s.current, "max_versions": 0, "versions": versions})
	case "DELETE metadata":
		delete(f.secrets, name)
		w.WriteHeader(204)
	case "PUT destroy":
		for _, n := range in["versions"].([]any) {
			if v := s.versions[int64(n.(float64))]; v != nil {
				v.data, v.destroyed = nil, true
			}
		}
		w.WriteHeader(204)
	default:
		refuse(w, 405)
	}
}

func (v *fakeVersion) metadata(n int64) map[string]any {
	d := ""
	if v.deleted {
		d = "2026-11-21T12:00:00Z"
	}
	return map[string]any{"version": n, "created_time": "2026-11-20T12:00:00Z", "deletion_time": d, "destroyed": v.destroyed}
}

func (f *fake) write(w http.ResponseWriter, name string, in map[string]any) {
	s := f.secrets[name]
	if s == nil {
		s = &fakeSecret{versions: map[int64]*fakeVersion{}}
	}
	options, _ := in["options"].(map[string]any)
	cas, ok := options["cas"].(float64)
	switch {
	case !ok:
		refuse(w, 400, "check-and-set parameter required for this call")
		return
	case int64(cas) != s.current:
		refuse(w, 400, "check-and-set parameter did not match the current version")
		return
	}
	f.secrets[name] = s
	s.current++
	v := &fakeVersion{data: in["data"].(map[string]any)}
	s.versions[s.current] = v
	delete(s.versions, s.current-10)
	m := v.metadata(s.current)
	m["deletion_time"] = f.lifetime
	data(w, m)
}

func (f *fake) read(w http.ResponseWriter, s *fakeSecret, version string) {
	if s == nil {
		refuse(w, 404)
		return
	}
	n, _ := strconv.ParseInt(version, 10, 64)
	v := s.versions[n]
	switch {
	case v == nil:
		refuse(w, 404)
	case v.deleted || v.destroyed:
		reply(w, 404, map[string]any{"data": map[string]any{"data": nil, "metadata": v.metadata(n)}})
	default:
		data(w, map[string]any{"data": v.data, "metadata": v.metadata(n)})
	}
}

// client returns a client with a token in a file.
func (f *fake) client(t *testing.T, change ...func(*Config)) *Client {
	t.Helper()
	c := Config{Address: f.URL, TokenFile: write(t, "CANARY-token\n", 0o600), HTTP: f.Server.Client(), Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	for _, change := range change {
		change(&c)
	}
	return must(New(c))(t)
}

func write(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f")
	if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
	return path
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// wantError wants an error with a sentinel and texts in it, and nothing secret.
func wantError(t *testing.T, err, sentinel error, says ...string) {
	t.Helper()
	if err == nil || sentinel != nil && !errors.Is(err, sentinel) {
		t.Errorf("got %v, want one that wraps %v", err, sentinel)
		return
	}
	if sentinel == nil && (errors.Is(err, mandate.ErrInvalid) || errors.Is(err, mandate.ErrUnavailable) || errors.Is(err, mandate.ErrNotFound)) {
		t.Errorf("got %v, want one that no waiting ends", err)
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("got %v, want %q in it", err, s)
		}
	}
	if strings.Contains(err.Error(), "CANARY") || strings.Contains(err.Error(), base64.StdEncoding.EncodeToString([]byte("CANARY"))) {
		t.Errorf("the error has a secret in it: %v", err)
	}
}

// recorded answers a request without a network, which a bubble has not.
func recorded(f *fake, r *http.Request) *http.Response {
	w := httptest.NewRecorder()
	if r.Body == nil {
		r.Body = http.NoBody
	}
	f.ServeHTTP(w, r)
	return w.Result()
}
