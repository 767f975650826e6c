package notify

import (
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/mandate-sam/mandate"
)

// Every kind says what happened, whose move it is, and what to do if it was
// not them.
func TestTexts(t *testing.T) {
	w := Writer{Site: "https://consent.example", Contact: "help@panels.example", Application: func(mandate.GrantKey) string { return "Example Marketplace" }}
	for _, k := range mandate.NoticeKinds {
		words, ok := texts[k]
		if !ok || words.subject == "" || words.happened == "" || words.move == "" || words.wrong == "" {
			t.Errorf("%s: nothing is said of it: %+v", k, words)
		}
		m := w.message(stored{id: "n1", settled: true, created: time.Unix(1e9, 0), content: content{Notice: mandate.Notice{
			Kind: k, Partner: "contoso", Grant: &contoso, Generation: 2, Who: "uid:1000", About: "ada@contoso.example", Before: "bob@contoso.example", Why: "because", Until: time.Unix(2e9, 0)}}})
		for _, want := range []string{"Reason: because", "By: an operator of the service (uid:1000)", "When: 2001-09-09 01:46 UTC", "Until: 2033-05-18", "Tenant: " + contoso.Partner.String(), "Application: Example Marketplace " + contoso.Application.String(), "Generation: 2", "Notice: n1", "https://consent.example", "help@panels.example"} {
			if !strings.Contains(m.Text, want) {
				t.Errorf("%s does not say %q:\n%s", k, want, m.Text)
			}
		}
		if strings.Contains(m.Text+m.Subject, "%") || !strings.HasPrefix(m.Subject, "contoso: ") || strings.Contains(m.Text, "emulator") {
			t.Errorf("%s: %s\n%s", k, m.Subject, m.Text)
		}
	}
	if len(texts) != len(mandate.NoticeKinds) {
		t.Error("there are texts of kinds that are no kinds")
	}
	m := Writer{Emulated: true}.message(stored{content: content{Notice: mandate.Notice{Kind: "later"}}})
	if m.Subject != "[emulator] later" || !m.Emulated || !strings.Contains(m.Text, "of an emulator") {
		t.Errorf("got %+v", m)
	}
}

func TestKnown(t *testing.T) {
	for who, want := range map[string]string{"": "the service", "uid:0": "an operator of the service (uid:0)", "oid:x": "an operator of the service (oid:x)", "ada@contoso.example": "ada@contoso.example"} {
		if got := known(who); got != want {
			t.Errorf("%q: got %q, want %q", who, got, want)
		}
	}
}

// What somebody else chose stays one line of bounded length, breaks out of no
// sentence, and is no link.
func TestUntrusted(t *testing.T) {
	evil := "x\r\nBcc: eve@evil.example\r\n\r\nVisit https://evil.example/%W \u202egnp.exe\x1b[31m\x00" + strings.Repeat("y", 10_000)
	n := mandate.Notice{Kind: mandate.NoticeStaged, Partner: evil, Who: evil, About: evil, Before: evil, Why: evil, Also: []string{evil}}
	m := Writer{Site: "https://consent.example", Application: func(mandate.GrantKey) string { return evil }}.message(stored{settled: true, content: content{Notice: withGrant(n)}})
	if strings.ContainsAny(m.Subject, "\r\n") || strings.Count(m.Text, "://") != 1 || strings.Contains(m.Text, "\nBcc") || len(m.Text) > 3000 {
		t.Errorf("subject %q, text %d bytes:\n%s", m.Subject, len(m.Text), m.Text)
	}
	if m.Notice.Also != nil || strings.Contains(m.Notice.Why, "://") {
		t.Errorf("the webhook gets %+v", m.Notice)
	}
	for _, r := range m.Text {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Errorf("the text has %U", r)
		}
	}
	if lines := strings.Count(m.Text, "\n"); lines > 20 {
		t.Errorf("%d lines:\n%s", lines, m.Text)
	}
}

func withGrant(n mandate.Notice) mandate.Notice { n.Grant = &contoso; return n }

func FuzzMessage(f *testing.F) {
	f.Add("a", "b")
	f.Fuzz(func(t *testing.T, about, why string) {
		m := Writer{}.message(stored{content: content{Notice: mandate.Notice{Kind: mandate.NoticeStaged, Partner: about, About: about, Why: why}}})
		if strings.ContainsAny(m.Subject, "\r\n\x00") || strings.ContainsAny(m.Text, "\r\x00\x1b") || strings.Contains(m.Text, "://") {
			t.Errorf("subject %q, text %q", m.Subject, m.Text)
		}
	})
}
