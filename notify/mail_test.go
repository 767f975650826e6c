package notify

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/mail"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
)

func message() Message {
	return Message{ID: "n1.mail", To: []mandate.MailAddress{"ada@contoso.example"}, Subject: "contoso: a consent waits", Text: "One.\n\nTwo.\n.\nThree.\n", Created: time.Unix(1e9, 0)}
}

func (s *fakeSMTP) way(t *testing.T, change ...func(*MailConfig)) *Mail {
	t.Helper()
	cfg := MailConfig{Server: s.addr, Implicit: s.implicit, Plain: s.noTLS, From: "mandate@panels.example", Roots: s.roots}
	if s.password != "" {
		cfg.Username, cfg.Password = "mandate", func() (mandate.Secret, error) { return mandate.NewSecret(s.password), nil }
	}
	for _, f := range change {
		f(&cfg)
	}
	m, err := NewMail(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMail(t *testing.T) {
	for name, change := range map[string]func(*fakeSMTP){
		"STARTTLS":                  func(*fakeSMTP) {},
		"implicit TLS":              func(s *fakeSMTP) { s.implicit = true },
		"signed in":                 func(s *fakeSMTP) { s.password = "smtp-canary" },
		"signed in, implicit TLS":   func(s *fakeSMTP) { s.password, s.implicit = "smtp-canary", true },
		"plain, on this host":       func(s *fakeSMTP) { s.noTLS = true },
		"the server hangs up early": func(s *fakeSMTP) { s.bye = true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSMTP(t, change)
			if err := s.way(t).Send(t.Context(), message()); err != nil {
				t.Fatal(err)
			}
			all := s.taken()
			if len(all) != 1 || all[0].encrypted == s.noTLS || (all[0].user == "mandate") != (s.password != "") || !strings.HasPrefix(all[0].from, "FROM:<mandate@panels.example>") || !strings.HasPrefix(all[0].to, "TO:<ada@contoso.example>") {
				t.Fatalf("got %+v", all)
			}
			m, err := mail.ReadMessage(strings.NewReader(all[0].data))
			if err != nil {
				t.Fatal(err)
			}
			for header, want := range map[string]string{
				"From": "<mandate@panels.example>", "To": "<ada@contoso.example>", "Subject": "contoso: a consent waits", "Auto-Submitted": "auto-generated",
				"Message-Id": "<n1.mail." + address("ada@contoso.example") + "@panels.example>", "Bcc": "", "Content-Type": "text/plain; charset=UTF-8",
			} {
				if got := m.Header.Get(header); got != want {
					t.Errorf("%s: got %q, want %q", header, got, want)
				}
			}
			body, _ := io.ReadAll(m.Body)
			if got := strings.ReplaceAll(string(body), "\r\n", "\n"); !strings.Contains(got, "One.\n\nTwo.\n") || strings.Contains(all[0].data, "smtp-canary") {
				t.Errorf("body %q", got)
			}
		})
	}
}

// Nothing goes over a network in the clear, or to a server that is not who it
// should be; and no error has the password in it.
func TestMailRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		server func(*fakeSMTP)
		client func(*MailConfig)
		want   string
	}{
		{"a server without STARTTLS", func(s *fakeSMTP) { s.noTLS = true }, func(c *MailConfig) { c.Plain = false }, "does not support STARTTLS"},
		{"another authority", func(*fakeSMTP) {}, func(c *MailConfig) { c.Roots = x509.NewCertPool() }, "certificate"},
		{"another authority, implicit", func(s *fakeSMTP) { s.implicit = true }, func(c *MailConfig) { c.Roots = x509.NewCertPool() }, "certificate"},
		{"another password", func(s *fakeSMTP) { s.password = "right" }, func(c *MailConfig) {
			c.Password = func() (mandate.Secret, error) { return mandate.NewSecret("smtp-canary"), nil }
		}, "the password [secret] is wrong"},
		{"no password", func(s *fakeSMTP) { s.password = "right" }, func(c *MailConfig) {
			c.Password = func() (mandate.Secret, error) { return mandate.Secret{}, errors.New("the file is gone") }
		}, "the file is gone"},
		{"an address that is not known", func(s *fakeSMTP) { s.rcpt = "550 no such user" }, func(*MailConfig) {}, "no such user"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSMTP(t, tt.server)
			err := s.way(t, tt.client).Send(t.Context(), message())
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "smtp-canary") {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if all := s.taken(); len(all) != 0 {
				t.Errorf("taken: %+v", all)
			}
		})
	}
	s := newSMTP(t)
	if err := s.way(t, func(c *MailConfig) { c.Server = closedPort(t) }).Send(t.Context(), message()); err == nil {
		t.Error("sent to nobody")
	}
	for _, tt := range []struct {
		field string
		cfg   MailConfig
	}{
		{"server", MailConfig{Server: "mail.example", From: "a@b.example"}},
		{"server", MailConfig{Server: "mail.example:0", From: "a@b.example"}},
		{"server", MailConfig{Server: ":25", From: "a@b.example"}},
		{"tls", MailConfig{Server: "mail.example:25", Plain: true, From: "a@b.example"}},
		{"tls", MailConfig{Server: "192.0.2.1:25", Plain: true, From: "a@b.example"}},
		{"from", MailConfig{Server: "mail.example:587", From: "Mandate"}},
		{"username", MailConfig{Server: "127.0.0.1:25", Plain: true, From: "a@b.example", Username: "x"}},
	} {
		var invalid *mandate.InvalidError
		if _, err := NewMail(tt.cfg); !errors.As(err, &invalid) || invalid.Field != tt.field {
			t.Errorf("%+v: got %v, want an error about %s", tt.cfg, err, tt.field)
		}
	}
}

func closedPort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// A server that takes the connection and says nothing holds nobody up for
// longer than the context.
func TestMailSilentServer(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	closed := make(chan error)
	go func() {
		c, err := ln.Accept()
		if err == nil {
			_, _ = c.Write([]byte("220 mail.test ESMTP\r\n"))
			_, err = bufio.NewReader(c).ReadString('\n') // EHLO
			cancel()
			_, _ = io.Copy(io.Discard, c) // until it is closed
			c.Close()
		}
		closed <- err
	}()
	if err := newSMTP(t).way(t, func(c *MailConfig) { c.Server = ln.Addr().String() }).Send(ctx, message()); err == nil {
		t.Error("sent")
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// A name that somebody chose cannot add a header, or a recipient.
func TestMailHeaderInjection(t *testing.T) {
	s := newSMTP(t)
	m := message()
	m.Subject = "x\r\nBcc: eve@evil.example\r\n\r\nbody\n.\r\nMAIL FROM:<eve@evil.example>"
	m.Text = "x\r\n.\r\nMAIL FROM:<eve@evil.example>\r\nRCPT TO:<eve@evil.example>\r\nDATA\r\n"
	if err := s.way(t).Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	all := s.taken()
	if len(all) != 1 {
		t.Fatalf("%d mails", len(all))
	}
	got, err := mail.ReadMessage(strings.NewReader(all[0].data))
	if err != nil || got.Header.Get("Bcc") != "" || !strings.HasPrefix(got.Header.Get("Subject"), "x Bcc: eve@evil.example body") {
		t.Errorf("%v, %v", got.Header, err)
	}
	for _, to := range []mandate.MailAddress{"a@b.example\r\nRCPT TO:<eve@evil.example>", "a@b.example> <eve@evil.example", ""} {
		m.To = []mandate.MailAddress{to}
		if err := s.way(t).Send(t.Context(), m); err == nil {
			t.Errorf("sent to %q", to)
		}
	}
	if all := s.taken(); len(all) != 1 {
		t.Errorf("taken: %+v", all[1:])
	}
}
