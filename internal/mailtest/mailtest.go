// Package mailtest is as much of a mail server as takes mail over STARTTLS or
// TLS and shows it to a test.
package mailtest

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// Config says what a server is like. The zero value demands nothing, and offers
// STARTTLS.
type Config struct {
	Implicit bool   // TLS from the beginning
	NoTLS    bool   // never
	Password string // asked for, if set
	Refuse   string // the answer to RCPT, such as "550 no such user"; "" takes it
	HangUp   bool   // as soon as a mail was taken

	// TLS is what the server shows. Nil makes a certificate for 127.0.0.1.
	TLS *tls.Config
}

// A Server takes mail.
type Server struct {
	Config
	Addr  string         // host:port
	Roots *x509.CertPool // of its certificate, if it made that
	got   chan Mail

	mu    sync.Mutex
	mails []Mail // guarded by mu
}

// A Mail is one that was taken.
type Mail struct {
	From, To  string // the arguments of MAIL and RCPT
	Data      string // with its headers, as it came
	User      string // who signed in
	Encrypted bool
}

// Start starts a server, which ends with the test.
func Start(t testing.TB, cfg Config) *Server {
	t.Helper()
	s := &Server{Config: cfg, got: make(chan Mail, 100)}
	if s.TLS == nil {
		s.TLS, s.Roots = certificate(t)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Addr = ln.Addr().String()
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(time.Minute))
				if s.Implicit {
					s.serve(tls.Server(c, s.TLS))
				} else {
					s.serve(c)
				}
			})
		}
	})
	t.Cleanup(func() { ln.Close(); running.Wait() })
	return s
}

// Next waits for the next mail that is taken.
func (s *Server) Next(t testing.TB) Mail {
	t.Helper()
	select {
	case m := <-s.got:
		return m
	case <-time.After(time.Minute):
		t.Fatal("no mail came within a minute")
		return Mail{}
	}
}

// Mails returns all that were taken so far.
func (s *Server) Mails() []Mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Mail(nil), s.mails...)
}

func certificate(t testing.TB) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots.AddCert(made)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, roots
}

// serve speaks to one client.
func (s *Server) serve(c net.Conn) {
	r, m := bufio.NewReader(c), Mail{Encrypted: s.Implicit}
	say := func(line string) { _, _ = c.Write([]byte(line + "\r\n")) }
	say("220 mail.test ESMTP")
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		verb, rest, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		switch strings.ToUpper(verb) {
		case "EHLO":
			say("250-mail.test")
			if !s.NoTLS && !m.Encrypted {
				say("250-STARTTLS")
			}
			if s.Password != "" {
				say("250-AUTH PLAIN")
			}
			say("250 8BITMIME")
		case "STARTTLS":
			say("220 go")
			c = tls.Server(c, s.TLS)
			r, m.Encrypted = bufio.NewReader(c), true
		case "AUTH":
			b, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(rest, "PLAIN "))
			parts := strings.Split(string(b), "\x00")
			if len(parts) != 3 || parts[2] != s.Password {
				say("535 the password " + parts[len(parts)-1] + " is wrong")
				continue
			}
			m.User = parts[1]
			say("235 ok")
		case "MAIL":
			if s.Password != "" && m.User == "" {
				say("530 sign in first")
				continue
			}
			m.From = rest
			say("250 ok")
		case "RCPT":
			if s.Refuse != "" {
				say(s.Refuse)
				continue
			}
			m.To = rest
			say("250 ok")
		case "DATA":
			say("354 go")
			m.Data = data(r)
			s.mu.Lock()
			s.mails = append(s.mails, m)
			s.mu.Unlock()
			s.got <- m
			say("250 taken")
			if s.HangUp {
				return
			}
		case "QUIT":
			say("221 bye")
			return
		default:
			say("250 ok")
		}
	}
}

func data(r *bufio.Reader) string {
	var b strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil || line == ".\r\n" {
			return b.String()
		}
		b.WriteString(line)
	}
}
