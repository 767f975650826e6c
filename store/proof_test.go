package store

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate"
)

func TestProof(t *testing.T) {
	p := NewProof()
	back, err := ParseProof(p.Cookie().Reveal())
	if err != nil || back.Hash() != p.Hash() || back.State() != p.State() || back.Nonce() != p.Nonce() || back.Verifier().Reveal() != p.Verifier().Reveal() {
		t.Errorf("a proof is another one when it comes back (error %v)", err)
	}
	seen := map[string]bool{p.Cookie().Reveal(): true}
	for _, q := range []Proof{p, NewProof()} {
		for _, s := range []string{q.Verifier().Reveal(), q.Nonce(), q.State(), q.Challenge()} {
			if seen[s] || len(s) != 43 || strings.Contains(s, ".") {
				t.Errorf("%q is not 43 characters of its own", s)
			}
			seen[s] = true
		}
	}
	sum := sha256.Sum256([]byte(p.Verifier().Reveal()))
	if want := base64.RawURLEncoding.EncodeToString(sum[:]); p.Challenge() != want {
		t.Errorf("the challenge is %s, want S256 of the verifier, %s", p.Challenge(), want)
	}
	for _, tt := range []struct {
		proof Proof
		state string
		want  bool
	}{
		{p, p.State(), true}, {p, "", false}, {p, NewProof().State(), false}, {p, p.Nonce(), false}, {Proof{}, "", false}, {Proof{}, Proof{}.State(), false},
	} {
		if got := tt.proof.Fits(tt.state); got != tt.want {
			t.Errorf("Fits(%q): got %t, want %t", tt.state, got, tt.want)
		}
	}
	for _, cookie := range []string{"", "x", p.Cookie().Reveal()[:42], p.Cookie().Reveal() + "A", strings.Repeat("~", 43), strings.Repeat("A", 42) + "B"} {
		if _, err := ParseProof(cookie); !errors.Is(err, mandate.ErrInvalid) {
			t.Errorf("ParseProof(%q): got error %v, want %v", cookie, err, mandate.ErrInvalid)
		}
	}
	if text := fmt.Sprintf("%v %+v %#v", p, p, p); strings.Contains(text, p.Cookie().Reveal()) {
		t.Errorf("a proof prints: %s", text)
	}
}

func TestSentences(t *testing.T) {
	seen := make(map[string]bool)
	for _, err := range []error{
		&TransactionError{TransactionUnknown}, &TransactionError{TransactionProof}, &TransactionError{TransactionUsed},
		&TransactionError{TransactionExpired}, &TransactionError{TransactionInvitation}, &TransactionError{TransactionUnfinished},
		&InvitationError{InvitationUnknown}, &InvitationError{InvitationUsed}, &InvitationError{InvitationExpired},
	} {
		if seen[err.Error()] {
			t.Errorf("two reasons have the sentence %q", err)
		}
		seen[err.Error()] = true
	}
}
