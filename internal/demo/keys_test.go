package demo

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/emulator"
	"github.com/mandate-sam/mandate/internal/app"
	"github.com/mandate-sam/mandate/vault"
)

// Keys are rotated, and everything brought under the new one, while tokens are
// redeemed; the product is killed in the middle of it and goes on afterwards.
// Every grant opens at every moment.
func TestReencryptionUnderLoad(t *testing.T) {
	d, _ := begin(t, Config{Idle: true})
	p := d.launch(t)
	var err error
	if d.Operator, err = api.NewSocketClient(d.Socket); err != nil {
		t.Fatal(err)
	}
	d.consent(t)
	// A token is not handed out in its last minute, so every request opens the
	// grant and seals the next refresh token.
	d.Emulator.Dial(func(d *emulator.Dials) { d.AccessTokenLifetime = time.Minute })
	first, err := d.Operator.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		served := d.load(t, func() {
			for range 3 {
				if _, err := d.Operator.RotateKey(t.Context(), api.RotateRequest{}); err != nil {
					t.Error(err)
				}
				if err := d.Operator.Rewrap(t.Context(), api.RewrapRequest{}, nil); err != nil {
					t.Error(err)
				}
			}
		})
		if served == 0 {
			t.Error("nothing was served meanwhile")
		}
		if _, err := d.Operator.RotateKey(t.Context(), api.RotateRequest{}); err != nil {
			t.Fatal(err)
		}
		rewrapping := make(chan error, 1)
		go func() { rewrapping <- d.Operator.Rewrap(t.Context(), api.RewrapRequest{Compromised: true}, nil) }()
		time.Sleep(time.Millisecond)
		p.kill()
		<-rewrapping
		if d.stored(t) == 0 {
			t.Fatal("the stored refresh token is none of Entra's")
		}
		p = d.launch(t)
		if err := d.Operator.Rewrap(t.Context(), api.RewrapRequest{Compromised: true}, nil); err != nil {
			t.Error(err)
		}
		if err := d.ask(t); err != nil {
			t.Error(err)
		}
	}
	last, err := d.Operator.Keys(t.Context())
	if err != nil || len(last.Keys) != 1 || last.Keys[0].ID != last.Current || last.Current == first.Current {
		t.Errorf("at the end: %+v, %v", last, err)
	}
	var invalid *mandate.InvalidError
	if err := d.Operator.RetireKey(t.Context(), last.Current); !errors.As(err, &invalid) || contains(err.Error(), "sealed with it") != nil {
		t.Errorf("retiring the current key: %v", err)
	}
	if err := d.Operator.RetireKey(t.Context(), first.Current); err != nil {
		t.Errorf("retiring the first key: %v", err)
	}
	if err := d.ask(t); err != nil {
		t.Error(err)
	}
}

// load asks for tokens again and again while do runs, all of which must come,
// and returns how many did.
func (d *Demo) load(t *testing.T, do func()) int {
	t.Helper()
	stop := make(chan struct{})
	var group sync.WaitGroup
	var mu sync.Mutex
	served := 0
	for range 4 {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := d.ask(t); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				served++
				mu.Unlock()
			}
		})
	}
	do()
	close(stop)
	group.Wait()
	return served
}

// Replicas learn of a new key in the file that they share.
func TestReplicasLearnTheKey(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	f.Emulator.Dial(func(d *emulator.Dials) { d.AccessTokenLifetime = time.Minute })
	var invalid *mandate.InvalidError
	if _, err := f.replicas[0].client.RotateKey(t.Context(), api.RotateRequest{}); !errors.As(err, &invalid) || contains(err.Error(), "mandate key reload", "--shared-file") != nil {
		t.Errorf("one copy of several: %v", err)
	}
	before, err := f.replicas[0].client.Keys(t.Context())
	if err != nil || len(before.Keys) != 1 || before.Keys[0].Own != 2 {
		t.Fatalf("keys %+v, %v; want one, which wraps two of the server's own", before, err)
	}
	r, err := f.replicas[0].client.RotateKey(t.Context(), api.RotateRequest{Shared: true})
	if err != nil {
		t.Fatal(err)
	}
	within(t, 5*time.Second, "the other's use of the new key", func() bool {
		st, err := f.replicas[1].client.Keys(t.Context())
		return err == nil && st.Current == r.KeyID
	})
	for _, r := range f.replicas {
		if _, err := r.ask(t.Context(), "graph", ""); err != nil {
			t.Errorf("%s: %v", r.name, err)
		}
	}
	if err := f.replicas[1].client.Rewrap(t.Context(), api.RewrapRequest{}, nil); err != nil {
		t.Error(err)
	}
	f.inVault(t, func(v *vault.SQL) error {
		all, err := v.Keys(t.Context())
		for _, k := range all {
			if k.KeyID != r.KeyID && k.Grants > 0 {
				t.Errorf("%d grant(s) are under %s", k.Grants, k.KeyID)
			}
		}
		return err
	})
	f.retires(t, before.Current, r.KeyID)
	// A lockdown of one is one of all.
	if _, err := f.replicas[0].client.Lock(t.Context(), api.LockRequest{Reason: "drill"}); err != nil {
		t.Fatal(err)
	}
	within(t, time.Second, "the lockdown", func() bool {
		_, err := f.replicas[1].ask(t.Context(), "graph", "")
		return errors.Is(err, mandate.ErrLocked)
	})
}

// retires takes the earlier key away: not while the server's own keys are
// wrapped with it, and then nobody misses it, also who starts afterwards.
func (f *fleet) retires(t *testing.T, earlier, current string) {
	t.Helper()
	client := f.replicas[0].client
	if st, err := client.Keys(t.Context()); err != nil || len(st.Keys) != 1 || st.Keys[0].ID != current || st.Keys[0].Own != 2 {
		t.Errorf("once everything is rewrapped: %+v, %v", st, err)
	}
	for where, what := range map[string]string{"state_key SET": "security state", "audit_keys SET": "audit log"} {
		f.exec(t, "UPDATE "+where+" key_id = '"+earlier+"' WHERE key_id = '"+current+"'")
		if err := client.RetireKey(t.Context(), earlier); contains(fmt.Sprint(err), what, "mandate key rewrap") != nil {
			t.Errorf("retired while it wraps a key of the %s: %v", what, err)
		}
		if st, err := client.Keys(t.Context()); err != nil || len(st.Keys) != 2 || st.Keys[1].ID != earlier || st.Keys[1].Own != 1 {
			t.Errorf("what the earlier key wraps: %+v, %v", st, err)
		}
		f.exec(t, "UPDATE "+where+" key_id = '"+current+"' WHERE key_id = '"+earlier+"'")
	}
	if err := client.RetireKey(t.Context(), earlier); err != nil {
		t.Errorf("retiring what nothing is sealed with: %v", err)
	}
	f.replicas[0].kill()
	f.replicas[0].launch(t)
	if _, err := f.replicas[0].ask(t.Context(), "graph", ""); err != nil {
		t.Errorf("started without the earlier key: %v", err)
	}
}

// What replicas share has a key of its own, where it is configured: that is
// shown, rotated, rewrapped and retired like the other, and every replica goes
// on with it.
func TestReplicasRotateTheSharedKey(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	if _, err := app.NewKeyFile(f.File("keys/shared.key")); err != nil {
		t.Fatal(err)
	}
	for _, r := range f.replicas {
		r.kill()
		replaceIn(t, r.config, "key_file: keys/mandate.key\n", "key_file: keys/mandate.key\nshared_key: {file: keys/shared.key}\n")
		r.launch(t)
	}
	one, other := f.replicas[0].client, f.replicas[1].client
	// tokens returns how many shared tokens are under which key.
	tokens := func() (api.KeyStatus, map[string]int) {
		t.Helper()
		st, err := one.Keys(t.Context())
		if err != nil || contains(st.Where, "keys/mandate.key", "keys/shared.key") != nil {
			t.Fatalf("%+v, %v", st, err)
		}
		n := make(map[string]int)
		for _, k := range st.Keys {
			n[k.ID] = k.Tokens
		}
		return st, n
	}
	if _, err := f.replicas[0].ask(t.Context(), "graph", ""); err != nil {
		t.Fatal(err)
	}
	before, n := tokens()
	if before.Shared == "" || before.Shared == before.Current || n[before.Shared] != 1 {
		t.Fatalf("%+v", before)
	}
	if r, err := one.RotateKey(t.Context(), api.RotateRequest{}); contains(fmt.Sprint(err), "--file PATH") != nil {
		t.Errorf("one copy of several: %+v, %v", r, err)
	}
	r, err := one.RotateKey(t.Context(), api.RotateRequest{Shared: true})
	if err != nil || r.SharedKeyID == "" || r.SharedKeyID == before.Shared || r.KeyID == before.Current {
		t.Fatalf("%+v, %v", r, err)
	}
	within(t, 5*time.Second, "the other's use of the new key", func() bool {
		st, err := other.Keys(t.Context())
		return err == nil && st.Shared == r.SharedKeyID && st.Current == r.KeyID
	})
	redeemed := len(f.Emulator.TokenRequests())
	if _, err := f.replicas[1].ask(t.Context(), "graph", ""); err != nil || len(f.Emulator.TokenRequests()) != redeemed {
		t.Errorf("what was shared under the key before: %v, %d redemptions", err, len(f.Emulator.TokenRequests())-redeemed)
	}
	if _, err := f.replicas[1].ask(t.Context(), "arm", ""); err != nil {
		t.Error(err)
	}
	if after, n := tokens(); after.Shared != r.SharedKeyID || n[before.Shared] != 1 || n[r.SharedKeyID] != 1 {
		t.Errorf("rotated: %+v", after)
	}
	if err := one.RetireKey(t.Context(), before.Shared); contains(fmt.Sprint(err), "1 shared token(s)") != nil {
		t.Errorf("retired while something is sealed with it: %v", err)
	}
	if err := one.Rewrap(t.Context(), api.RewrapRequest{}, nil); err != nil {
		t.Fatal(err)
	}
	if after, n := tokens(); n[before.Shared] != 0 || n[r.SharedKeyID] != 2 {
		t.Errorf("rewrapped: %+v", after)
	}
	if err := one.RetireKey(t.Context(), before.Shared); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(f.File("keys/shared.key")); err != nil || strings.Contains(string(text), before.Shared) || !strings.Contains(string(text), r.SharedKeyID) {
		t.Errorf("the file, once the key before is retired: %v", err)
	}
}
