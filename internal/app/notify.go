package app

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/privatefile"
	"github.com/mandate-sam/mandate/notify"
	"github.com/mandate-sam/mandate/store"
)

// Notices says how people are told what they may not have wanted, and which
// operators are. What a partner wants told to whom is in the database: mandate
// partner contact.
type Notices struct {
	// Operators are mail addresses, at best of a list that several people
	// read.
	Operators []string `yaml:"operators"`

	Mail    *NoticeMail    `yaml:"mail"`
	Webhook *NoticeWebhook `yaml:"webhook"`
}

// A NoticeMail is a server that takes mail for others.
type NoticeMail struct {
	Server       string `yaml:"server"` // host:port
	TLS          string `yaml:"tls"`    // starttls (default), implicit, or none on a loopback address
	From         string `yaml:"from"`   // an address
	Username     string `yaml:"username"`
	PasswordFile Path   `yaml:"password_file"`
	Roots        Path   `yaml:"roots"` // PEM file of the only certificate authorities that count; default: the system's
}

// A NoticeWebhook takes notices as JSON.
type NoticeWebhook struct {
	URL     string `yaml:"url"`
	KeyFile Path   `yaml:"key_file"` // with the key of the signature
	Roots   Path   `yaml:"roots"`    // PEM file of the only certificate authorities that count; default: the system's
}

// maxCredential is the longest password or key of a way, in bytes.
const maxCredential = 4 << 10

// checkNotices checks what can be without reading a file.
func (c *Config) checkNotices() error {
	if _, err := c.Notices.operators(); err != nil {
		return err
	}
	if m := c.Notices.Mail; m != nil {
		if (m.Username == "") != (m.PasswordFile == "") {
			return mandate.Invalid("notices.mail.username", "and password_file go together")
		}
		if _, err := notify.NewMail(m.config(nil, nil)); err != nil {
			return at("notices.mail", err)
		}
		if m.TLS != "" && m.TLS != "starttls" && m.TLS != "implicit" && m.TLS != "none" {
			return mandate.Invalid("notices.mail.tls", "%.40q is none of starttls, implicit and none", m.TLS)
		}
	}
	if h := c.Notices.Webhook; h != nil {
		if h.KeyFile == "" {
			return mandate.Invalid("notices.webhook.key_file", "is required: without a signature nobody can tell a notice from a forged one")
		}
		if _, err := notify.NewWebhook(notify.WebhookConfig{URL: h.URL}); err != nil {
			return at("notices.webhook", err)
		}
	}
	return nil
}

func (n *Notices) operators() ([]mandate.MailAddress, error) {
	var out []mandate.MailAddress
	for i, s := range n.Operators {
		a, err := mandate.ParseMailAddress(s)
		if err != nil {
			return nil, renamed(fmt.Sprintf("notices.operators[%d]", i), err)
		}
		out = append(out, a)
	}
	if len(out) > 20 {
		return nil, mandate.Invalid("notices.operators", "are more than 20; a mailing list reaches more people")
	}
	return out, nil
}

func (m *NoticeMail) config(password func() (mandate.Secret, error), roots *x509.CertPool) notify.MailConfig {
	return notify.MailConfig{Server: m.Server, Implicit: m.TLS == "implicit", Plain: m.TLS == "none", From: mandate.MailAddress(m.From),
		Username: m.Username, Password: password, Roots: roots}
}

// mail returns what sends mail, or nil.
func (c *Config) mail() (notify.Way, error) {
	m := c.Notices.Mail
	if m == nil {
		return nil, nil
	}
	roots, err := c.noticeRoots(m.Roots)
	if err != nil {
		return nil, err
	}
	if m.PasswordFile != "" {
		if _, err := c.credential(m.PasswordFile); err != nil {
			return nil, err
		}
	}
	return notify.NewMail(m.config(func() (mandate.Secret, error) { return c.credential(m.PasswordFile) }, roots))
}

// webhook returns what tells the webhook, or nil.
func (c *Config) webhook() (notify.Way, error) {
	h := c.Notices.Webhook
	if h == nil {
		return nil, nil
	}
	roots, err := c.noticeRoots(h.Roots)
	if err != nil {
		return nil, err
	}
	key := func() (mandate.Secret, error) { return c.credential(h.KeyFile) }
	secret, err := key()
	if err == nil {
		_, err = notify.ParseWebhookKey(secret)
	}
	if err != nil {
		return nil, err
	}
	return notify.NewWebhook(notify.WebhookConfig{URL: h.URL, Key: key, HTTP: &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
	}}})
}

// noticeRoots returns the certificate authorities of a file; nil means the
// system's.
func (c *Config) noticeRoots(p Path) (*x509.CertPool, error) {
	if p == "" {
		return nil, nil
	}
	roots := x509.NewCertPool()
	return roots, addAuthorities(roots, c.file(p))
}

// credential reads what a way proves with. It is read each time, so that a new
// one counts without a restart.
func (c *Config) credential(p Path) (mandate.Secret, error) {
	path := c.file(p)
	b, mode, err := privatefile.Read(path, maxCredential)
	if err == nil {
		err = privatefile.Private(path, mode)
	}
	if err == nil && strings.TrimSpace(string(b)) == "" {
		err = fmt.Errorf("%s is empty", path)
	}
	return mandate.NewSecret(strings.TrimSpace(string(b))), err
}

// outbox returns what tells people.
func (p *parts) outbox(a *App, c *Config) (*notify.Outbox, error) {
	operators, err := c.Notices.operators()
	if err != nil {
		return nil, err
	}
	mail, merr := c.mail()
	hook, herr := c.webhook()
	if err := errors.Join(wrapped("notices.mail", merr), wrapped("notices.webhook", herr)); err != nil {
		return nil, err
	}
	if mail == nil && hook == nil {
		a.log.Warn(noWay)
	}
	names := make(map[appKey]string)
	for i := range c.Applications {
		if id, err := mandate.ParseAppID(c.Applications[i].ClientID); err == nil {
			names[appKey{c.Applications[i].cloud(), id}] = c.Applications[i].DisplayName
		}
	}
	return notify.New(notify.Config{
		DB: a.db, Directory: contacts{p.store}, Operators: operators, Mail: mail, Webhook: hook, Record: a.audit, Epoch: p.epoch, Log: a.log.With("part", "notices"),
		Writer: notify.Writer{Site: c.Portal.PublicURL, Contact: c.Portal.Contact, Emulated: p.emulated,
			Application: func(k mandate.GrantKey) string { return names[appKey{k.Cloud, k.Application}] }},
	})
}

func wrapped(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// noWay is said where nobody would hear of anything.
const noWay = "nobody is told: neither notices.mail nor notices.webhook is configured, so that notices are only kept and listed (mandate notice list)"

// checkNoticeFiles says of the ways whether they can be used.
func (c *Config) checkNoticeFiles() (note string, err error) {
	mail, merr := c.mail()
	hook, herr := c.webhook()
	var ways []string
	if mail != nil {
		ways = append(ways, "mail by "+c.Notices.Mail.Server)
	}
	if hook != nil {
		ways = append(ways, "webhook")
	}
	switch err := errors.Join(wrapped("mail", merr), wrapped("webhook", herr)); {
	case err != nil:
		return "", err
	case len(ways) == 0:
		return noWay, nil
	case len(c.Notices.Operators) == 0 && hook == nil:
		return "no operator is told: notices.operators names nobody, and there is no webhook", nil
	}
	return fmt.Sprintf("%s; %d operator address(es); not tried", strings.Join(ways, " and "), len(c.Notices.Operators)), nil
}

// contacts gives notices their addresses. It implements [notify.Directory].
type contacts struct{ store *store.Store }

// Contacts implements [notify.Directory].
func (d contacts) Contacts(k mandate.GrantKey) (string, []mandate.MailAddress, error) {
	partners, err := d.store.Partners()
	if err != nil {
		return "", nil, err
	}
	for _, p := range partners {
		if p.Key != k {
			continue
		}
		all, err := d.store.Contacts(p.Name)
		var out []mandate.MailAddress
		for _, c := range all {
			out = append(out, c.Address)
		}
		return p.Name, out, err
	}
	return "", nil, nil
}
