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
	"github.com/mandate-sam/mandate/internal/mailtest"
)

func message() Message {
	return Message{ID: "n1.mail", To: []mandate.MailAddress{"ada@contoso.example"}, Subject: "contoso: a consent waits", Text: "One.\n\nTwo.\n.\nThree.\n", Created: time.Unix(1e9, 0)}
}

func way(t *testing.T, s *mailtest.Server, change ...func(*MailConfig)) *Mail {
	t.Helper()
	cfg := MailConfig{Server: s.Addr, Implicit: s.Implicit, Plain: s.NoTLS, From: "mandate@panels.example", Roots: s.Roots}
	if s.Password != "" {
		cfg.Username, cfg.Password = "mandate", func() (mandate.Secret, error) { return mandate.NewSecret(s.Password), nil }
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

func start(t *testing.T, change func(*mailtest.Config)) *mailtest.Server {
	t.Helper()
	var cfg mailtest.Config
	change(&cfg)
	return mailtest.Start(t, cfg)
}

func TestMail(t *testing.T) {
	for name, change := range map[string]func(*mailtest.Config){
		"STARTTLS":                  func(*mailtest.Config) {},
		"implicit TLS":              func(s *mailtest.Config) { s.Implicit = true },
		"signed in":                 func(s *mailtest.Config) { s.Password = "smtp-canary" },
		"signed in, implicit TLS":   func(s *mailtest.Config) { s.Password, s.Implicit = "smtp-canary", true },
		"plain, on this host":       func(s *mailtest.Config) { s.NoTLS = true },
		"the server hangs up early": func(s *mailtest.Config) { s.HangUp = true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, change)
			if err := way(t, s).Send(t.Context(), message()); err != nil {
				t.Fatal(err)
			}
			all := s.Mails()
			if len(all) != 1 || all[0].Encrypted == s.NoTLS || (all[0].User == "mandate") != (s.Password != "") || !strings.HasPrefix(all[0].From, "FROM:<mandate@panels.example>") || !strings.HasPrefix(all[0].To, "TO:<ada@contoso.example>") {
				t.Fatalf("got %+v", all)
			}
			m, err := mail.ReadMessage(strings.NewReader(all[0].Data))
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
			if got := strings.ReplaceAll(string(body), "\r\n", "\n"); !strings.Contains(got, "One.\n\nTwo.\n") || strings.Contains(all[0].Data, "smtp-canary") {
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
		server func(*mailtest.Config)
		client func(*MailConfig)
		want   string
	}{
		{"a server without STARTTLS", func(s *mailtest.Config) { s.NoTLS = true }, func(c *MailConfig) { c.Plain = false }, "does not support STARTTLS"},
		{"another authority", func(*mailtest.Config) {}, func(c *MailConfig) { c.Roots = x509.NewCertPool() }, "certificate"},
		{"another authority, implicit", func(s *mailtest.Config) { s.Implicit = true }, func(c *MailConfig) { c.Roots = x509.NewCertPool() }, "certificate"},
		{"another password", func(s *mailtest.Config) { s.Password = "right" }, func(c *MailConfig) {
			c.Password = func() (mandate.Secret, error) { return mandate.NewSecret("smtp-canary"), nil }
		}, "the password [secret] is wrong"},
		{"no password", func(s *mailtest.Config) { s.Password = "right" }, func(c *MailConfig) {
			c.Password = func() (mandate.Secret, error) { return mandate.Secret{}, errors.New("the file is gone") }
		}, "the file is gone"},
		{"an address that is not known", func(s *mailtest.Config) { s.Refuse = "550 no such user" }, func(*MailConfig) {}, "no such user"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, tt.server)
			err := way(t, s, tt.client).Send(t.Context(), message())
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "smtp-canary") {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if all := s.Mails(); len(all) != 0 {
				t.Errorf("taken: %+v", all)
			}
		})
	}
	s := mailtest.Start(t, mailtest.Config{})
	if err := way(t, s, func(c *MailConfig) { c.Server = closedPort(t) }).Send(t.Context(), message()); err == nil {
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
	if err := way(t, mailtest.Start(t, mailtest.Config{}), func(c *MailConfig) { c.Server = ln.Addr().String() }).Send(ctx, message()); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("got %v, want that the connection was closed", err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// A name that somebody chose cannot add a header, or a recipient.
func TestMailHeaderInjection(t *testing.T) {
	s := mailtest.Start(t, mailtest.Config{})
	m := message()
	m.Subject = "x\r\nBcc: eve@evil.example\r\n\r\nbody\n.\r\nMAIL FROM:<eve@evil.example>"
	m.Text = "x\r\n.\r\nMAIL FROM:<eve@evil.example>\r\nRCPT TO:<eve@evil.example>\r\nDATA\r\n"
	if err := way(t, s).Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	all := s.Mails()
	if len(all) != 1 {
		t.Fatalf("%d mails", len(all))
	}
	got, err := mail.ReadMessage(strings.NewReader(all[0].Data))
	if err != nil || got.Header.Get("Bcc") != "" || !strings.HasPrefix(got.Header.Get("Subject"), "x Bcc: eve@evil.example body") {
		t.Errorf("%v, %v", got.Header, err)
	}
	for _, to := range []mandate.MailAddress{"a@b.example\r\nRCPT TO:<eve@evil.example>", "a@b.example> <eve@evil.example", ""} {
		m.To = []mandate.MailAddress{to}
		if err := way(t, s).Send(t.Context(), m); err == nil {
			t.Errorf("sent to %q", to)
		}
	}
	if all := s.Mails(); len(all) != 1 {
		t.Errorf("taken: %+v", all[1:])
	}
}
