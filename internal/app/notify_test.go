package app

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate"
)

// noticed is the example with its notices taken out of their comment.
func noticed(t *testing.T, change ...string) (Config, error) {
	t.Helper()
	text := Example()
	i := strings.Index(text, "# notices:\n")
	j := i + strings.Index(text[i:], "\n\n")
	section := strings.ReplaceAll(strings.TrimPrefix(text[i:j], "# "), "\n# ", "\n")
	text = text[:i] + strings.NewReplacer(change...).Replace(section) + text[j:]
	return load(t, text)
}

func TestNoticesConfig(t *testing.T) {
	c, err := noticed(t)
	if err != nil || len(c.Notices.Operators) != 1 || c.Notices.Mail.Server != "smtp.panels.example:587" || c.Notices.Webhook.KeyFile != "keys/webhook.key" {
		t.Fatalf("got %+v, %v", c.Notices, err)
	}
	for _, tt := range []struct{ old, new, field string }{
		{"[security@panels.example]", "[Security <security@panels.example>]", "notices.operators[0]"},
		{"[security@panels.example]", "[" + strings.Repeat("a@panels.example, ", 21) + "]", "notices.operators"},
		{"smtp.panels.example:587", "smtp.panels.example", "notices.mail.server"},
		{"tls: starttls", "tls: opportunistic", "notices.mail.tls"},
		{"tls: starttls", "tls: none", "notices.mail.tls"},
		{"from: mandate@panels.example", "from: mandate", "notices.mail.from"},
		{"    username: mandate\n", "", "notices.mail.username"},
		{"https://alerts", "http://alerts", "notices.webhook.url"},
		{"    key_file: keys/webhook.key", "    roots: x.pem", "notices.webhook.key_file"},
	} {
		_, err := noticed(t, tt.old, tt.new)
		if !errors.Is(err, mandate.ErrInvalid) || !strings.Contains(err.Error(), tt.field) {
			t.Errorf("%q: got %v, want an error about %s", tt.new, err, tt.field)
		}
	}
	if _, err := noticed(t, "keys/smtp.password", "correct-horse-battery-staple-correct-horse"); err == nil || strings.Contains(err.Error(), "correct-horse") {
		t.Errorf("a password in the configuration: got %v", err)
	}
}

// What is wrong with the files is said, without what is in them; and that
// nobody is told at all.
func TestNoticesFiles(t *testing.T) {
	c, err := noticed(t)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string, mode os.FileMode) {
		path := filepath.Join(c.dir, "keys", name)
		_ = os.Remove(path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), mode)); err != nil {
			t.Fatal(err)
		}
	}
	const good = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz\n"
	for _, tt := range []struct {
		password, key string
		mode          os.FileMode
		want          string
	}{
		{"canary", good, 0o600, ""},
		{"canary", good, 0o640, "others must not read it"},
		{" \n", good, 0o600, "is empty"},
		{"canary", "canary", 0o600, "openssl rand"},
	} {
		write("smtp.password", tt.password, tt.mode)
		write("webhook.key", tt.key, tt.mode)
		note, err := c.checkNoticeFiles()
		if (err == nil) != (tt.want == "") || err != nil && (!strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "canary")) {
			t.Errorf("%+v: got %q, %v", tt, note, err)
		}
		if err == nil && !strings.Contains(note, "mail by smtp.panels.example:587 and webhook; 1 operator address(es)") {
			t.Errorf("got %q", note)
		}
	}
	c.Notices.Webhook, c.Notices.Operators = nil, nil
	write("smtp.password", "canary", 0o600)
	if note, err := c.checkNoticeFiles(); err != nil || !strings.Contains(note, "no operator is told") {
		t.Errorf("got %q, %v", note, err)
	}
	c.Notices.Mail = nil
	found := false
	for _, f := range CheckFiles(c) {
		found = found || f.Subject == "notices" && f.OK && strings.Contains(f.Message, "nobody is told")
	}
	if !found {
		t.Error("config check does not say that nobody is told")
	}
}

// The doctor says whether anybody hears of anything.
func TestDoctorNotices(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Notices)
		want   string
	}{
		"nothing":       {func(n *Notices) { *n = Notices{} }, Bad},
		"mail alone":    {func(n *Notices) { n.Webhook = nil }, Good},
		"no operator":   {func(n *Notices) { n.Webhook, n.Operators = nil, nil }, Advice},
		"webhook alone": {func(n *Notices) { n.Mail = nil }, Advice},
		"both":          {func(*Notices) {}, Good},
	} {
		c, err := noticed(t)
		if err != nil {
			t.Fatal(err)
		}
		for file, text := range map[string]string{"smtp.password": "canary", "webhook.key": "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"} {
			path := filepath.Join(c.dir, "keys", file)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		tt.change(&c.Notices)
		got := ""
		for _, r := range Diagnose(c).Remarks {
			if r.Subject == "notices" {
				got += r.Grade
			}
		}
		if got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}
