package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/upstream"
)

// WebhookConfig is whom a webhook tells.
type WebhookConfig struct {
	// URL takes the messages: https, or http of a loopback address.
	URL string

	// Key returns the key of the signature; see [ParseWebhookKey]. It is asked
	// for each time.
	Key func() (mandate.Secret, error)

	// HTTP makes the requests. Nil means [http.DefaultClient]. Redirects are
	// not followed, whatever it says.
	HTTP *http.Client
}

// Webhook sends messages as JSON, signed as https://www.standardwebhooks.com
// says, so that a receiver finds a library that verifies them. It is a [Way].
type Webhook struct {
	cfg WebhookConfig
	to  *url.URL
}

// NewWebhook returns what tells a webhook, or says what cannot be so. No error
// has the URL in it, which may be a secret.
func NewWebhook(cfg WebhookConfig) (*Webhook, error) {
	u, err := url.Parse(cfg.URL)
	switch {
	case err != nil || u.Host == "" || u.Fragment != "":
		return nil, mandate.Invalid("url", "is not a URL such as https://alerts.example.com/mandate")
	case u.User != nil:
		return nil, mandate.Invalid("url", "has a user or a password in it: what proves that a message is ours is its signature")
	case u.Scheme != "https" && (u.Scheme != "http" || !Loopback(u.Hostname())):
		return nil, mandate.Invalid("url", "must begin with https://; http is taken of a loopback address only")
	}
	if cfg.HTTP == nil {
		cfg.HTTP = http.DefaultClient
	}
	cfg.HTTP = upstream.Direct(cfg.HTTP)
	return &Webhook{cfg, u}, nil
}

// keyPrefix begins a key, as Standard Webhooks write it.
const keyPrefix = "whsec_"

// ParseWebhookKey reads a key: "whsec_" and 24 to 64 bytes in base64.
func ParseWebhookKey(s mandate.Secret) ([]byte, error) {
	text, ok := strings.CutPrefix(s.Reveal(), keyPrefix)
	key, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || len(key) < 24 || len(key) > 64 {
		return nil, mandate.Invalid("key_file", `must hold whsec_ and 24 to 64 random bytes in base64: echo "whsec_$(openssl rand -base64 32)"`)
	}
	return key, nil
}

// maxAnswer is how much of an answer is read, in bytes.
const maxAnswer = 64 << 10

// A hook is the body.
type hook struct {
	Type      string    `json:"type"` // "mandate." and the kind
	Timestamp time.Time `json:"timestamp"`
	Data      hookData  `json:"data"`
}

type hookData struct {
	ID        string                `json:"id"`
	Subject   string                `json:"subject"`
	Text      string                `json:"text"`
	To        []mandate.MailAddress `json:"to"` // who wants to be told
	Notice    mandate.Notice        `json:"notice"`
	Uncertain bool                  `json:"uncertain,omitempty"`
	Emulated  bool                  `json:"emulated,omitempty"`
}

// Send implements [Way].
func (h *Webhook) Send(ctx context.Context, m Message) error {
	secret, err := h.cfg.Key()
	if err != nil {
		return err
	}
	key, err := ParseWebhookKey(secret)
	if err != nil {
		return err
	}
	body, err := json.Marshal(hook{"mandate." + string(m.Notice.Kind), m.Created.UTC(),
		hookData{m.ID, m.Subject, m.Text, m.To, m.Notice, m.Uncertain, m.Emulated}})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, "POST", h.to.String(), bytes.NewReader(body))
	if err != nil {
		return upstream.WithoutURL(err)
	}
	at := strconv.FormatInt(time.Now().Unix(), 10)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Webhook-Id", m.ID)
	req.Header.Set("Webhook-Timestamp", at)
	req.Header.Set("Webhook-Signature", sign(key, m.ID, at, body))
	status, _, _, err := upstream.Do(h.cfg.HTTP, req, maxAnswer)
	switch {
	case err != nil:
		return fmt.Errorf("webhook at %s: %w", h.to.Host, err)
	case status >= 300 && status < 400:
		return fmt.Errorf("webhook at %s: it answered %d; redirects are not followed: put the address that it leads to into the configuration", h.to.Host, status)
	case status < 200 || status >= 300:
		return fmt.Errorf("webhook at %s: it answered %d", h.to.Host, status)
	}
	return nil
}

// sign is an HMAC-SHA-256 of ID, time and body.
func sign(key []byte, id, at string, body []byte) string {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(id + "." + at + "."))
	m.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(m.Sum(nil))
}

// address is a short name for an address, which is nobody's to read.
func address(a mandate.MailAddress) string {
	sum := sha256.Sum256([]byte(a))
	return hex.EncodeToString(sum[:6])
}
