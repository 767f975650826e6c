package notify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"github.com/wneessen/go-mail"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/upstream"
)

// MailConfig is how mail is sent.
type MailConfig struct {
	// Server is the host and port of a server that takes mail for others.
	Server string

	// Implicit begins TLS at once, as on port 465, and not by STARTTLS.
	Implicit bool

	// Plain sends without TLS, which is taken of a loopback address only.
	Plain bool

	From mandate.MailAddress

	// Username and Password sign in, if there is a name.
	Username string
	Password func() (mandate.Secret, error) // asked for each time

	// Roots are the certificate authorities that count. Nil means the
	// system's.
	Roots *x509.CertPool
}

// Mail sends each message to one address. It is a [Way].
type Mail struct {
	cfg        MailConfig
	host       string
	port       int
	fromDomain string
}

// NewMail returns what sends mail, or says what cannot be so.
func NewMail(cfg MailConfig) (*Mail, error) {
	host, port, err := net.SplitHostPort(cfg.Server)
	if err != nil || host == "" {
		return nil, mandate.Invalid("server", "%.100q must be host:port", cfg.Server)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return nil, mandate.Invalid("server", "%.100q must be host:port", cfg.Server)
	}
	if cfg.Plain && !Loopback(host) {
		return nil, mandate.Invalid("tls", "cannot be none for %s: who is told what is nobody's business on the way; use starttls or implicit", host)
	}
	if _, err := mandate.ParseMailAddress(string(cfg.From)); err != nil {
		return nil, mandate.Invalid("from", "%.80q is not a mail address", cfg.From)
	}
	if cfg.Plain && cfg.Username != "" {
		return nil, mandate.Invalid("username", "needs TLS")
	}
	_, domain, _ := strings.Cut(string(cfg.From), "@")
	return &Mail{cfg, host, int(n), domain}, nil
}

// Loopback reports whether a host is this one.
func Loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Send implements [Way]. Each address has a mail of its own, so that nobody
// learns who else is told.
func (m *Mail) Send(ctx context.Context, msg Message) error {
	var password mandate.Secret
	if m.cfg.Username != "" {
		var err error
		if password, err = m.cfg.Password(); err != nil {
			return err
		}
	}
	redactor := upstream.Redactor(password.Reveal())
	for _, to := range msg.To {
		if err := m.send(ctx, msg, to, password); err != nil {
			return fmt.Errorf("mail by %s: %w", m.cfg.Server, upstream.Redact(redactor, err))
		}
	}
	return nil
}

func (m *Mail) send(ctx context.Context, msg Message, to mandate.MailAddress, password mandate.Secret) error {
	out, err := m.compose(msg, to)
	if err != nil {
		return err
	}
	var l line
	defer l.Close()
	defer context.AfterFunc(ctx, l.Close)()
	client, err := mail.NewClient(m.host, m.options(&l, password)...)
	if err != nil {
		return err
	}
	err = client.DialAndSendWithContext(ctx, out)
	if out.IsDelivered() {
		return nil // what went wrong was after the server had taken it
	}
	if err == nil {
		err = errors.New("the server did not take it")
	}
	return err
}

func (m *Mail) options(l *line, password mandate.Secret) []mail.Option {
	config := &tls.Config{ServerName: m.host, RootCAs: m.cfg.Roots, MinVersion: tls.VersionTLS12}
	options := []mail.Option{
		mail.WithPort(m.port), mail.WithTimeout(attempt / 3), mail.WithoutNoop(), mail.WithTLSConfig(config),
		mail.WithDialContextFunc(func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := l.dial(ctx, network, address)
			if err != nil || !m.cfg.Implicit {
				return conn, err
			}
			encrypted := tls.Client(conn, config)
			return encrypted, encrypted.HandshakeContext(ctx)
		}),
	}
	switch {
	case m.cfg.Plain:
		options = append(options, mail.WithTLSPolicy(mail.NoTLS))
	case m.cfg.Implicit:
		options = append(options, mail.WithSSL())
	default:
		options = append(options, mail.WithTLSPolicy(mail.TLSMandatory))
	}
	if m.cfg.Username != "" {
		options = append(options, mail.WithOpportunisticSMTPAuth(mail.SMTPAuthPlain, mail.SMTPAuthLogin), mail.WithUsername(m.cfg.Username), mail.WithPassword(password.Reveal()))
	}
	return options
}

// A line is the connection to the server. The library follows a context only
// while it dials, and leaves a connection open on which TLS fails.
type line struct {
	mu     sync.Mutex
	conn   net.Conn // guarded by mu
	closed bool     // guarded by mu
}

func (l *line) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn = conn; l.closed {
		conn.Close()
	}
	return conn, nil
}

// Close ends the connection that there is, or will be.
func (l *line) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed = true; l.conn != nil {
		l.conn.Close()
	}
}

// compose writes the mail. Subject and addresses go through the library, which
// encodes what a header cannot hold.
func (m *Mail) compose(msg Message, to mandate.MailAddress) (*mail.Msg, error) {
	out := mail.NewMsg(mail.WithNoDefaultUserAgent())
	if err := out.From(string(m.cfg.From)); err != nil {
		return nil, err
	}
	if err := out.To(string(to)); err != nil {
		return nil, err
	}
	out.Subject(upstream.Clean(msg.Subject, 200))
	out.SetDateWithValue(msg.Created)
	out.SetMessageIDWithValue(msg.ID + "." + address(to) + "@" + m.fromDomain)
	out.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: no answer by a machine
	out.SetBodyString(mail.TypeTextPlain, msg.Text)
	return out, nil
}
