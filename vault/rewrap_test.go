package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

func TestRewrap(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg database.Config) {
		for _, compromised := range []bool{false, true} {
			for _, home := range []string{"", "away"} {
				t.Run(fmt.Sprintf("compromised %t, home %q", compromised, home), func(t *testing.T) {
					cfg := cfg
					if cfg.URL == "" {
						cfg = sqlite(t)
					}
					testRewrap(t, cfg, compromised, home)
				})
			}
		}
	})
}

func testRewrap(t *testing.T, cfg database.Config, compromised bool, home string) {
	ctx := t.Context()
	v := withHome(t, cfg, &fakeHome{})
	v.homeOf = func(mandate.GrantKey) string { return home }
	if _, err := v.db.Exec(ctx, `DELETE FROM grants`); err != nil {
		t.Fatal(err)
	}
	populate(t, v)
	const busy, idle = 2, 8
	for i := range idle {
		activate(t, v, candidate(v.db, partner(10+i), 1, fmt.Sprint("idle ", i)))
	}
	for i := range busy {
		activate(t, v, candidate(v.db, partner(20+i), 1, fmt.Sprint("busy ", i)))
	}
	keys := v.key.(*KeyFile)
	old := keys.KeyID()
	before := boxes(t, v)
	want := everything(t, v)
	current, err := keys.Rotate()
	if err != nil {
		t.Fatal(err)
	}
	stopped, cancel := context.WithCancel(ctx)
	err = v.Rewrap(stopped, compromised, func(done, total int) {
		if done == 5 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("a Rewrap that was stopped: got error %v, want %v", err, context.Canceled)
	}
	if uses, err := v.Keys(ctx); err != nil || len(uses) != 2 {
		t.Errorf("Keys half-way: got %v, %v, want two keys", uses, err)
	}
	same(t, everything(t, v), want)

	stop := hurry(t, v, 20, busy)
	err = v.Rewrap(ctx, compromised, nil)
	stop()
	if err != nil {
		t.Fatal(err)
	}
	uses, err := v.Keys(ctx)
	if err != nil || len(uses) != 1 || uses[0].KeyID != current || uses[0].Grants != 7+idle+busy {
		t.Errorf("Keys: got %v, %v, want all %d under %q and none under %q", uses, err, 7+idle+busy, current, old)
	}
	got := everything(t, newVaultLike(t, v))
	for name, token := range want {
		if !strings.Contains(token, "busy") && got[name] != token {
			t.Errorf("%s: got %q, want %q", name, got[name], token)
		}
	}
	for name, box := range boxes(t, v) {
		if b, ok := before[name]; ok && (string(b) == string(box)) == compromised {
			t.Errorf("%s: the ciphertext is the same: %t, want %t", name, compromised, !compromised)
		}
	}
	if err := keys.Remove(old); err != nil {
		t.Fatal(err)
	}
	everything(t, newVaultLike(t, v))
}

// hurry opens and rotates n grants again and again until stop is called, which
// looks whether each has what was kept last.
func hurry(t *testing.T, v *SQL, first, n int) (stop func()) {
	var stops []func() string
	for i := range n {
		stops = append(stops, rotating(t, v, partner(first+i)))
	}
	return func() {
		for i, stop := range stops {
			last := stop()
			if g, err := newVaultLike(t, v).Open(context.Background(), partner(first+i)); err != nil || last != "" && g.Refresh.Reveal() != last {
				t.Errorf("grant %d: got %q, %v, want the token that was kept last, %q", i, g.Refresh.Reveal(), err, last)
			}
		}
	}
}

// boxes returns the ciphertext of every row, without the wrapped data key.
func boxes(t *testing.T, v *SQL) map[string][]byte {
	t.Helper()
	rows, err := v.rows(t.Context(), `SELECT `+columns+` FROM grants WHERE key_id IS NOT NULL`)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string][]byte)
	for _, r := range rows {
		blob, err := v.blobOf(t.Context(), &r)
		if err != nil {
			t.Fatal(err)
		}
		s, err := parseSealed(r.keyID.String, blob)
		if err != nil {
			t.Fatal(err)
		}
		all[fmt.Sprintf("%s/%d version %d", r.partner, r.generation, r.version)] = s.box
	}
	return all
}

func TestRewrapOfSharedTokens(t *testing.T) {
	for _, compromised := range []bool{false, true} {
		v, _, _ := openVault(t)
		g := activate(t, v, candidate(v.db, contoso, 1, "refresh"))
		g, err := v.Open(t.Context(), g.Key)
		if err != nil {
			t.Fatal(err)
		}
		c := check{vault: v, epoch: patient{v.db}, turns: v, key: contoso}
		w := c.wanted(g, "https://example.com")
		token := c.accessToken(g, w, "access")
		if err := c.share(t.Context(), g, w, token, mandate.Secret{}); err != nil {
			t.Fatal(err)
		}
		current, err := v.key.(*KeyFile).Rotate()
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Rewrap(t.Context(), compromised, nil); err != nil {
			t.Fatal(err)
		}
		uses, err := v.Keys(t.Context())
		want := []KeyUse{{current, 1, 1}}
		if compromised {
			want[0].Tokens = 0
		}
		if err != nil || !slices.Equal(uses, want) {
			t.Errorf("compromised %t: got %v, %v, want %v", compromised, uses, err, want)
		}
		if err := c.got(t.Context(), w, token); (err == nil) == compromised {
			t.Errorf("compromised %t: got error %v", compromised, err)
		}
	}
}

// TestRewrapReportsWhatItCannot: one row that does not open stops no other.
func TestRewrapReportsWhatItCannot(t *testing.T) {
	v, db, _ := openVault(t)
	for i := range 3 {
		activate(t, v, candidate(db, partner(i), 1, "refresh"))
	}
	if _, err := db.Exec(t.Context(), `UPDATE grants SET key_id = 'lost' WHERE partner = $1`, partner(1).Partner.String()); err != nil {
		t.Fatal(err)
	}
	current, err := v.key.(*KeyFile).Rotate()
	if err != nil {
		t.Fatal(err)
	}
	err = v.Rewrap(t.Context(), false, nil)
	if err == nil || !strings.Contains(err.Error(), partner(1).Partner.String()) {
		t.Errorf("got error %v, want one that names partner %s", err, partner(1).Partner)
	}
	uses, err := v.Keys(t.Context())
	if err != nil || !slices.Equal(uses, []KeyUse{{current, 2, 0}, {"lost", 1, 0}}) {
		t.Errorf("Keys: got %v, %v", uses, err)
	}
}

func TestKeyring(t *testing.T) {
	ctx := t.Context()
	file := openKeys(t, t.TempDir()+"/keys")
	other := &fakeWrapper{id: "elsewhere"}
	id, wrapped, err := file.Wrap(ctx, []byte("data key"))
	if err != nil {
		t.Fatal(err)
	}
	ring := NewKeyring(other, file)
	if got, err := ring.Unwrap(ctx, id, wrapped); err != nil || string(got) != "data key" {
		t.Errorf("Unwrap with an earlier key: got %q, %v", got, err)
	}
	if id, _, err := ring.Wrap(ctx, []byte("data key")); err != nil || id != "elsewhere" {
		t.Errorf("Wrap: got key %q, %v, want the current", id, err)
	}
	if err := CheckSealed(ctx, ring); err != nil {
		t.Error(err)
	}
	ring = NewKeyring(openKeys(t, t.TempDir()+"/keys"))
	if _, err := ring.Unwrap(ctx, id, wrapped); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", id)) || ring.Has(id) {
		t.Errorf("Unwrap with a key that is nowhere: got error %v, want one that names it", err)
	}
	other.err = errors.New("down")
	if _, err := NewKeyring(other, file).Unwrap(ctx, "elsewhere", wrapped); !errors.Is(err, other.err) {
		t.Errorf("Unwrap while the key's keeper is down: got error %v, want %v", err, other.err)
	}
}

func TestVaultMovesToAnotherKeeper(t *testing.T) {
	v, db, _ := openVault(t)
	populate(t, v)
	want := everything(t, v)
	other := openKeys(t, t.TempDir()+"/keys")
	both, err := New(Config{DB: db, Key: NewKeyring(other, v.key), SharedKey: NewKeyring(other.Shared(), v.shared)})
	if err != nil {
		t.Fatal(err)
	}
	same(t, everything(t, both), want)
	if err := both.Rewrap(t.Context(), true, nil); err != nil {
		t.Fatal(err)
	}
	same(t, everything(t, newVault(t, db, other)), want)
}

func TestRotateKeyFile(t *testing.T) {
	path := t.TempDir() + "/keys"
	here, there := openKeys(t, path), openKeys(t, path)
	first := here.KeyID()
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			k := here
			if i%2 == 1 {
				k = there
			}
			if _, err := k.Rotate(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	second, err := here.Rotate()
	if err != nil {
		t.Fatal(err)
	}
	if again := openKeys(t, path); again.KeyID() != second || len(again.keys) != 8 {
		t.Errorf("the file has %d keys, the current %q; want 8, %q", len(again.keys), again.KeyID(), second)
	}
	id, wrapped, err := here.Wrap(t.Context(), []byte("data key"))
	if err != nil || id != second {
		t.Errorf("Wrap used key %q (error %v), want the new one, %q", id, err, second)
	}
	if got, err := there.Unwrap(t.Context(), id, wrapped); err != nil || string(got) != "data key" {
		t.Errorf("who opened the file before: got %q, %v, want the new key read from it", got, err)
	}
	if err := here.Remove(second); err == nil {
		t.Error("the key that wraps was removed")
	}
	if err := here.Remove("none"); err == nil {
		t.Error("a key that is not there was removed")
	}
	if err := here.Remove(first); err != nil || here.Has(first) {
		t.Errorf("Remove: got error %v, and the key is there: %t", err, here.Has(first))
	}
	if err := CheckSealed(t.Context(), here); err != nil {
		t.Error(err)
	}
}

// slowWrapper counts what it unwraps, and takes its time.
type slowWrapper struct {
	KeyWrapper
	mu sync.Mutex // guards n
	n  int
}

func (w *slowWrapper) Unwrap(ctx context.Context, id string, wrapped []byte) ([]byte, error) {
	w.mu.Lock()
	w.n++
	w.mu.Unlock()
	time.Sleep(20 * time.Millisecond)
	return w.KeyWrapper.Unwrap(ctx, id, wrapped)
}

// TestOneUnwrap: warming a thousand customers of one partner unwraps once.
func TestOneUnwrap(t *testing.T) {
	v, db, _ := openVault(t)
	g := activate(t, v, candidate(db, contoso, 1, "refresh"))
	slow := &slowWrapper{KeyWrapper: v.key}
	v, err := New(Config{DB: db, Key: slow})
	if err != nil {
		t.Fatal(err)
	}
	open := func(want string) {
		t.Helper()
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if got, err := v.Open(t.Context(), contoso); err != nil || got.Refresh.Reveal() != want {
					t.Errorf("got %q, %v, want %q", got.Refresh.Reveal(), err, want)
				}
			})
		}
		wg.Wait()
	}
	open("refresh")
	if slow.n != 1 {
		t.Errorf("100 at once unwrapped %d times, want 1", slow.n)
	}
	if err := rotate(t.Context(), v, g, "next"); err != nil {
		t.Fatal(err)
	}
	open("next")
	if slow.n != 1 {
		t.Errorf("what was just sealed was unwrapped %d times", slow.n-1)
	}
	if err := errors.Join(v.Suspend(t.Context(), contoso), v.Resume(t.Context(), contoso)); err != nil {
		t.Fatal(err)
	}
	open("next")
	if slow.n != 2 {
		t.Errorf("after a change of security state: %d unwrappings, want one more", slow.n-1)
	}
	activate(t, v, candidate(db, contoso, 2, "renewed"))
	open("renewed")
	if slow.n != 2 {
		t.Errorf("what was just activated was unwrapped %d times", slow.n-2)
	}
}

// hookWrapper does something before it wraps.
type hookWrapper struct {
	KeyWrapper
	before func()
}

func (w *hookWrapper) Wrap(ctx context.Context, plain []byte) (string, []byte, error) {
	w.before()
	return w.KeyWrapper.Wrap(ctx, plain)
}

// TestRewrapLosesToARotation: a replica that still has the old key alone stores
// a refresh token while the one before is being rewrapped.
func TestRewrapLosesToARotation(t *testing.T) {
	ctx := t.Context()
	old, db, _ := openVault(t)
	activate(t, old, candidate(db, contoso, 1, "refresh"))
	wraps := 0
	hook := &hookWrapper{KeyWrapper: NewKeyring(openKeys(t, t.TempDir()+"/keys"), old.key)}
	hook.before = func() {
		if wraps++; wraps != 2 { // the first finds out which key is current
			return
		}
		g, err := old.Open(ctx, contoso)
		if err != nil {
			t.Error(err)
		}
		if err := rotate(ctx, old, g, "rotated"); err != nil {
			t.Error(err)
		}
	}
	v, err := New(Config{DB: db, Key: hook})
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Rewrap(ctx, false, nil); err != nil {
		t.Error(err)
	}
	if g, err := v.Open(ctx, contoso); err != nil || g.Refresh.Reveal() != "rotated" {
		t.Errorf("Open: got %q, %v, want the token that was kept meanwhile", g.Refresh.Reveal(), err)
	}
	if uses, err := v.Keys(ctx); err != nil || len(uses) != 1 || uses[0].KeyID == old.key.(*KeyFile).KeyID() {
		t.Errorf("Keys: got %v, %v, want nothing under the old key", uses, err)
	}
}

// TestRewrapMakesNoDataKeys: what unwraps to something else stays what it is.
func TestRewrapMakesNoDataKeys(t *testing.T) {
	w := &fakeWrapper{id: "k", forget: true}
	s := sealed{format, "k", make([]byte, wrappedSize), nil}
	if _, err := renew(t.Context(), w, s, label{}, false); !errors.Is(err, errMoved) {
		t.Errorf("got error %v, want %v", err, errMoved)
	}
}
