package keyvault_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/emulator"
	"github.com/mandate-sam/mandate/keyvault"
)

var most = []string{"get", "set", "delete", "recover", "purge"}

func TestSecrets(t *testing.T) {
	w := start(t)
	w.permit(nil, most)
	s, ctx := w.open().Secrets(), t.Context()
	blobs := [][]byte{[]byte("CANARY \x00\xff"), bytes.Repeat([]byte("x"), 18<<10)}
	var refs []string
	for _, b := range blobs {
		refs = append(refs, must(s.Put(ctx, "grant-1", b))(t))
	}
	for i, b := range blobs {
		if got, err := s.Get(ctx, "grant-1", refs[i]); err != nil || !bytes.Equal(got, b) {
			t.Errorf("version %s: got %d bytes, %v, want %d", refs[i], len(got), err, len(b))
		}
	}
	stored := must(w.secrets().GetSecret(ctx, "grant-1", "", nil))(t)
	if *stored.ContentType != "application/vnd.mandate.sealed" || *stored.Tags["managed-by"] != "mandate" {
		t.Errorf("got %+v", stored.Secret)
	}
	remains, until, err := s.Destroy(ctx, "grant-1")
	if err != nil || remains != "" || !until.IsZero() {
		t.Errorf("destroyed: %q until %v, %v", remains, until, err)
	}
	_, err = s.Get(ctx, "grant-1", refs[1])
	wantError(t, err, mandate.ErrNotFound)
	_, err = w.secrets().GetDeletedSecret(ctx, "grant-1", nil)
	if err == nil {
		t.Error("it was not purged")
	}
	if remains, _, err := s.Destroy(ctx, "grant-1"); err != nil || remains != "" {
		t.Errorf("destroyed again: %q, %v", remains, err)
	}
	if _, err := s.Put(ctx, "grant-1", blobs[0]); err != nil {
		t.Errorf("the name is not free again: %v", err)
	}
}

func TestSecretsRefuse(t *testing.T) {
	w := start(t)
	s, ctx := w.open().Secrets(), t.Context()
	for _, name := range []string{"", "a_b", "a/b", "..", strings.Repeat("x", 128)} {
		_, err := s.Put(ctx, name, []byte("CANARY"))
		wantError(t, err, nil, "letters, digits and '-'")
		_, err = s.Get(ctx, name, "v")
		wantError(t, err, nil)
		_, err = s.Get(ctx, "v", name)
		wantError(t, err, nil)
		_, _, err = s.Destroy(ctx, name)
		wantError(t, err, nil)
	}
	_, err := s.Put(ctx, "n", bytes.Repeat([]byte("x"), 18<<10+1))
	wantError(t, err, nil, "takes 18432")
	if n := len(w.e.TokenRequests()); n != 0 {
		t.Errorf("%d sign-ins for what is refused", n)
	}
	foreign := must(w.secrets().SetSecret(ctx, "n", azsecrets.SetSecretParameters{Value: ptr("no base64!")}, nil))(t)
	_, err = s.Get(ctx, "n", foreign.ID.Version())
	wantError(t, err, nil, "not put there by this program")
}

// A deleted secret keeps its name. It is recovered, or purged, or somebody is
// told to.
func TestPutAfterDeletion(t *testing.T) {
	for _, tt := range []struct {
		name    string
		permits []string
		old     bool // whether the older version is there again
		says    string
	}{
		{"recovered", []string{"get", "set", "recover", "purge"}, true, ""},
		{"purged", []string{"get", "set", "purge"}, false, ""},
		{"neither", []string{"get", "set"}, false, "may neither recover nor purge it: the vault's administrator must"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := start(t)
			s, ctx := w.open().Secrets(), t.Context()
			first := must(s.Put(ctx, "grant", []byte("one")))(t)
			w.permit(nil, tt.permits)
			w.e.Dial(func(d *emulator.Dials) { d.KeyVault.SettleSeconds = 1 })
			must(w.secrets().DeleteSecret(ctx, "grant", nil))(t)
			ref, err := s.Put(ctx, "grant", []byte("two"))
			if tt.says != "" {
				wantError(t, err, nil, tt.says, `"secrets recover"`)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, err := s.Get(ctx, "grant", ref); err != nil || string(got) != "two" {
				t.Errorf("got %q, %v", got, err)
			}
			if _, err := s.Get(ctx, "grant", first); (err == nil) != tt.old {
				t.Errorf("the older version: %v", err)
			}
		})
	}
}

func TestGetErrors(t *testing.T) {
	w := start(t)
	s, ctx := w.open().Secrets(), t.Context()
	ref := must(s.Put(ctx, "grant", []byte("CANARY")))(t)
	must(w.secrets().UpdateSecretProperties(ctx, "grant", ref, azsecrets.UpdateSecretPropertiesParameters{
		SecretAttributes: &azsecrets.SecretAttributes{Enabled: ptr(false)},
	}, nil))(t)
	_, err := s.Get(ctx, "grant", ref)
	wantError(t, err, nil, "SecretDisabled", "whoever disabled it in the vault must enable it again")
	_, err = s.Get(ctx, "grant", strings.Repeat("0", 32))
	wantError(t, err, mandate.ErrNotFound, "administrator can recover it")
	w.permit(nil, []string{"set"})
	_, err = s.Get(ctx, "grant", ref)
	wantError(t, err, nil, `the permission "secrets get"`)
	if _, err := s.Put(ctx, "grant", []byte("x")); err != nil {
		t.Errorf("a permission that is there: %v", err)
	}
	w.permit(nil, []string{"get"})
	_, err = s.Put(ctx, "grant", []byte("CANARY"))
	wantError(t, err, nil, `the permission "secrets set"`)
	_, _, err = s.Destroy(ctx, "grant")
	wantError(t, err, nil, `the permission "secrets delete"`)
}

// What may not be purged remains, and how long is said.
func TestDestroyLeavesWhatMayNotBePurged(t *testing.T) {
	w := start(t)
	w.permit(nil, []string{"get", "set", "delete"})
	s, ctx := w.open().Secrets(), t.Context()
	must(s.Put(ctx, "grant", []byte("x")))(t)
	remains, until, err := s.Destroy(ctx, "grant")
	if err != nil || !strings.Contains(remains, "because application "+ours+" may not purge it") || time.Until(until) < 89*24*time.Hour {
		t.Errorf("got %q until %v, %v", remains, until, err)
	}
	again, later, err := s.Destroy(ctx, "grant")
	if err != nil || again != remains || !later.Equal(until) {
		t.Errorf("destroyed again: %q until %v, %v", again, later, err)
	}
}

func TestDestroyUnderPurgeProtection(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.e.Dial(func(d *emulator.Dials) { d.KeyVault.PurgeProtected = []string{emulator.DefaultVault} })
	s, ctx := w.open().Secrets(), t.Context()
	must(s.Put(ctx, "grant", []byte("x")))(t)
	remains, until, err := s.Destroy(ctx, "grant")
	if err != nil || !strings.Contains(remains, "the vault has purge protection") || until.IsZero() {
		t.Errorf("got %q until %v, %v", remains, until, err)
	}
}

// Azure takes its time to delete.
func TestDestroyWaits(t *testing.T) {
	t.Parallel()
	w := start(t)
	s, ctx := w.open().Secrets(), t.Context()
	must(s.Put(ctx, "grant", []byte("x")))(t)
	w.e.Dial(func(d *emulator.Dials) { d.KeyVault.SettleSeconds = 1 })
	if remains, _, err := s.Destroy(ctx, "grant"); err != nil || remains != "" {
		t.Fatalf("got %q, %v", remains, err)
	}
	if _, err := w.secrets().GetDeletedSecret(ctx, "grant", nil); err == nil {
		t.Error("it was not purged")
	}
}

// Our own budget is met before Azure's.
func TestBudget(t *testing.T) {
	t.Parallel()
	w := start(t)
	s, ctx := w.open().Secrets(), t.Context()
	began := time.Now() // what a slow machine takes counts, too
	ref := must(s.Put(ctx, "grant", []byte("x")))(t)
	for range 59 { // the burst of new versions is 50
		must(s.Put(ctx, "grant", []byte("x")))(t)
	}
	if took := time.Since(began); took < 400*time.Millisecond {
		t.Errorf("ten versions beyond the burst took %v", took)
	}
	if _, err := s.Get(ctx, "grant", ref); err != nil {
		t.Error(err)
	}
}

// A vault is asked no more often than was said, whatever for.
func TestRate(t *testing.T) {
	t.Parallel()
	w := start(t)
	s, ctx := w.open(func(c *keyvault.Config) { c.Rate = 10 }).Secrets(), t.Context()
	began := time.Now()
	ref := must(s.Put(ctx, "grant", []byte("x")))(t)
	for range 54 {
		must(s.Get(ctx, "grant", ref))(t)
	}
	if took := time.Since(began); took < 300*time.Millisecond {
		t.Errorf("five operations beyond the burst took %v", took)
	}
}
