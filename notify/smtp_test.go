package notify

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

// fakeSMTP is as much of a mail server as takes mail over STARTTLS or TLS.
type fakeSMTP struct {
	addr  string
	roots *x509.CertPool
	tls   *tls.Config

	implicit, noTLS bool
	password        string // asked for, if set

	mu    sync.Mutex // guards what follows
	rcpt  string     // the answer to RCPT; "" takes it
	bye   bool       // hangs up after the mail was taken
	mails []received
}

type received struct {
	from, to, data, user string
	encrypted            bool
}

func newSMTP(t *testing.T, change ...func(*fakeSMTP)) *fakeSMTP {
	t.Helper()
	s := &fakeSMTP{}
	s.tls, s.roots = certificate(t)
	for _, f := range change {
		f(s)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = ln.Addr().String()
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
				if s.implicit {
					c = tls.Server(c, s.tls)
				}
				s.serve(c)
			})
		}
	})
	t.Cleanup(func() { ln.Close(); running.Wait() })
	return s
}

func certificate(t *testing.T) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der := must(x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key))
	roots := x509.NewCertPool()
	roots.AddCert(must(x509.ParseCertificate(der)))
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, roots
}

// serve speaks to one client.
func (s *fakeSMTP) serve(c net.Conn) {
	r, m := bufio.NewReader(c), received{encrypted: s.implicit}
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
			if !s.noTLS && !m.encrypted {
				say("250-STARTTLS")
			}
			if s.password != "" {
				say("250-AUTH PLAIN")
			}
			say("250 8BITMIME")
		case "STARTTLS":
			say("220 go")
			c = tls.Server(c, s.tls)
			r, m.encrypted = bufio.NewReader(c), true
		case "AUTH":
			b, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(rest, "PLAIN "))
			parts := strings.Split(string(b), "\x00")
			if len(parts) != 3 || parts[2] != s.password {
				say("535 the password " + parts[len(parts)-1] + " is wrong")
				continue
			}
			m.user = parts[1]
			say("235 ok")
		case "MAIL":
			if s.password != "" && m.user == "" {
				say("530 sign in first")
				continue
			}
			m.from = rest
			say("250 ok")
		case "RCPT":
			s.mu.Lock()
			answer := s.rcpt
			s.mu.Unlock()
			if answer != "" {
				say(answer)
				continue
			}
			m.to = rest
			say("250 ok")
		case "DATA":
			say("354 go")
			m.data = data(r)
			s.mu.Lock()
			s.mails = append(s.mails, m)
			bye := s.bye
			s.mu.Unlock()
			say("250 taken")
			if bye {
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

func (s *fakeSMTP) taken() []received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]received(nil), s.mails...)
}
