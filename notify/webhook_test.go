package notify

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
)

const hookKey = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz" // 24 bytes

func hookTo(t *testing.T, url string, h *http.Client) *Webhook {
	t.Helper()
	w, err := NewWebhook(WebhookConfig{URL: url, HTTP: h, Key: func() (mandate.Secret, error) { return mandate.NewSecret(hookKey), nil }})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// A receiver verifies the signature over ID, time and body.
func TestWebhook(t *testing.T) {
	var calls atomic.Int64
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		body, _ := io.ReadAll(r.Body)
		m := hmac.New(sha256.New, []byte("012345678901234567890123"))
		m.Write([]byte(r.Header.Get("Webhook-Id") + "." + r.Header.Get("Webhook-Timestamp") + "." + string(body)))
		if want := "v1," + base64.StdEncoding.EncodeToString(m.Sum(nil)); r.Header.Get("Webhook-Signature") != want {
			t.Errorf("signature %q, want %q", r.Header.Get("Webhook-Signature"), want)
		}
		at, err := strconv.ParseInt(r.Header.Get("Webhook-Timestamp"), 10, 64)
		if err != nil || time.Since(time.Unix(at, 0)).Abs() > time.Minute || r.Header.Get("Webhook-Id") != "n1.mail" || r.Header.Get("Content-Type") != "application/json" || r.Method != "POST" {
			t.Errorf("headers %v, %v", r.Header, err)
		}
		var got hook
		if err := json.Unmarshal(body, &got); err != nil || got.Type != "mandate.withdrawn" || got.Data.Subject != "contoso: a consent waits" || got.Data.To[0] != "ada@contoso.example" || got.Timestamp.Unix() != 1e9 || !got.Data.Emulated {
			t.Errorf("got %s, %v", body, err)
		}
		if strings.Contains(string(body), "MDEyMzQ1") {
			t.Error("the key is in the body")
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(srv.Close)
	m := message()
	m.Notice.Kind, m.Emulated = mandate.NoticeWithdrawn, true
	if err := hookTo(t, srv.URL+"/in?x=1", srv.Client()).Send(t.Context(), m); err != nil || calls.Load() != 1 {
		t.Errorf("%v after %d calls", err, calls.Load())
	}
}

// Down, slow, elsewhere or in trouble: each is said, without the URL, and the
// next try delivers.
func TestWebhookFails(t *testing.T) {
	const path = "/T000/hook-canary"
	var elsewhere atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	t.Cleanup(other.Close)
	release := make(chan bool)
	t.Cleanup(func() { close(release) })
	for _, tt := range []struct {
		name string
		h    http.HandlerFunc
		want string
	}{
		{"redirects", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		}, "answered 307; redirects are not followed"},
		{"in trouble", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "hook-canary", 500) }, "answered 500"},
		{"not wanted", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) }, "answered 410"},
		{"endless", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, maxAnswer+1)) }, "longer than 65536 bytes"},
		{"slow", func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-release:
			}
		}, "deadline exceeded"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var good atomic.Bool
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !good.Load() {
					_, _ = io.Copy(io.Discard, r.Body) // so that a client that is gone is noticed
					tt.h(w, r)
				}
			}))
			t.Cleanup(srv.Close)
			h := &http.Client{Timeout: 5 * time.Second}
			if tt.name == "slow" {
				h.Timeout = 50 * time.Millisecond
			}
			w := newWorld(t, sqlite(t), func(c *Config) { c.Mail, c.Webhook = nil, hookTo(t, srv.URL+path, h) })
			if err := w.Notify(t.Context(), staged()); err != nil {
				t.Fatal(err)
			}
			w.round(t)
			d := w.only(t).Deliveries[0]
			if d.State != StateWaiting || !strings.Contains(strings.ToLower(d.Fault), tt.want) || strings.Contains(d.Fault, "hook-canary") {
				t.Errorf("got %+v, want %q", d, tt.want)
			}
			good.Store(true)
			w.exec(t, `UPDATE notice_deliveries SET due = 0`)
			w.round(t)
			if n := w.only(t); n.State != StateDelivered || n.Deliveries[0].Attempts != 2 {
				t.Errorf("got %+v", n)
			}
		})
	}
	if elsewhere.Load() != 0 {
		t.Error("a redirect was followed")
	}
	err := hookTo(t, "http://"+closedPort(t)+path, http.DefaultClient).Send(t.Context(), message())
	if err == nil || strings.Contains(err.Error(), "hook-canary") {
		t.Errorf("down: got %v", err)
	}
	tlsOnly := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(tlsOnly.Close)
	if err := hookTo(t, tlsOnly.URL, &http.Client{}).Send(t.Context(), message()); err == nil || !errors.As(err, new(x509.UnknownAuthorityError)) {
		t.Errorf("another authority: got %v", err)
	}
}

func TestWebhookConfig(t *testing.T) {
	for url, good := range map[string]bool{
		"https://a.example/x?y=z": true, "http://127.0.0.1:8080/x": true, "http://localhost/x": true, "http://[::1]:1/": true,
		"http://a.example": false, "http://10.0.0.1/": false, "http://127.0.0.1.evil.example/": false, "ftp://a.example": false, "ftp://127.0.0.1/": false, "a.example": false, "": false,
		"https://user:hook-canary@a.example/": false, "https://a.example/#x": false, "https:///x": false, "http://a.example/hook-canary": false,
	} {
		_, err := NewWebhook(WebhookConfig{URL: url})
		if (err == nil) != good || err != nil && strings.Contains(err.Error(), "hook-canary") {
			t.Errorf("%q: got %v", url, err)
		}
	}
	for key, good := range map[string]bool{
		hookKey: true, "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 64)): true,
		"": false, "whsec_": false, strings.TrimPrefix(hookKey, "whsec_"): false, "whsec_c2hvcnQ=": false, hookKey + "!": false, "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 65)): false,
	} {
		if _, err := ParseWebhookKey(mandate.NewSecret(key)); (err == nil) != good || err != nil && len(key) > len(keyPrefix) && strings.Contains(err.Error(), key) {
			t.Errorf("%q: got %v", key, err)
		}
	}
	bad := &Webhook{cfg: WebhookConfig{Key: func() (mandate.Secret, error) { return mandate.Secret{}, nil }}}
	if err := bad.Send(t.Context(), message()); !errors.Is(err, mandate.ErrInvalid) {
		t.Errorf("an empty key: got %v", err)
	}
}
