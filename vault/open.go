package vault

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/mandate-sam/mandate"
)

const (
	// maxRecent bounds how many tokens and blobs are remembered.
	maxRecent = 4096

	// openedLife bounds how long an opened token is remembered. A key that
	// was taken away from this program opens nothing any more after that.
	openedLife = 10 * time.Minute

	// unwrapTimeout bounds an unwrapping that several wait for. It is less
	// than a redemption may take, so that this learns why it came to nothing.
	unwrapTimeout = 20 * time.Second
)

// flights share an unwrapping that is under way.
type flights struct{ group singleflight.Group }

// secret opens a blob that was sealed for l, or remembers what it held: warming
// a partner's thousand customers asks the key's keeper once. What is
// remembered is found by every byte of the blob and of its label, so a row that
// was altered since opens no more than if nothing were remembered; and it is
// forgotten when the epoch moves. While the epoch is uncertain nothing is.
func (v *SQL) secret(ctx context.Context, keyID string, blob []byte, l label) (mandate.Secret, error) {
	name := nameOf(keyID, blob, l)
	epoch, unsure := v.db.Epoch()
	if s, ok := v.opened.get(epoch, name); ok && unsure == nil {
		return s, nil
	}
	// The unwrapping outlives whoever began it: others may wait for it.
	done := v.unwrap.group.DoChan(string(name[:]), func() (any, error) {
		// Somebody else's may have ended since we looked.
		if s, ok := v.opened.get(epoch, name); ok && unsure == nil {
			return s, nil
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unwrapTimeout)
		defer cancel()
		sealed, err := parseSealed(keyID, blob)
		if err != nil {
			return mandate.Secret{}, err
		}
		s, err := sealed.open(ctx, v.key, l)
		if err == nil && unsure == nil {
			v.opened.put(epoch, name, s)
		}
		return s, err
	})
	select {
	case r := <-done:
		if r.Err != nil {
			return mandate.Secret{}, r.Err
		}
		return r.Val.(mandate.Secret), nil
	case <-ctx.Done():
		return mandate.Secret{}, ctx.Err()
	}
}

// remember spares the unwrapping of what was just sealed.
func (v *SQL) remember(s stored, l label, secret mandate.Secret) {
	if epoch, err := v.db.Epoch(); err == nil {
		v.opened.put(epoch, nameOf(s.keyID, s.content, l), secret)
	}
}

// nameOf is different for everything of which a sealed value consists.
func nameOf(keyID string, blob []byte, l label) [sha256.Size]byte {
	h := sha256.New()
	for _, part := range [][]byte{[]byte(keyID), l.data(format), blob} {
		h.Write(number(int64(len(part))))
		h.Write(part)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

func labelOf(g mandate.Grant) label {
	return label{key: g.Key, kind: kindRefresh, generation: g.Generation, version: g.Version}
}

// A place is where a home keeps one blob, and what that was sealed for: a home
// that forgets a name may use the same refs for it again.
type place struct {
	home, name, ref, keyID string
	version                int64
}

// blobOf returns the sealed token of r, from wherever it is.
func (v *SQL) blobOf(ctx context.Context, r *row) ([]byte, error) {
	if r.home == "" {
		return r.sealed, nil
	}
	p := place{r.home, r.name(), r.ref, r.keyID.String, r.version}
	// What was sealed for a row does not change, so this holds in every epoch.
	if b, ok := v.blobs.get(0, p); ok {
		return b, nil
	}
	h, err := v.home(r.home)
	if err != nil {
		return nil, err
	}
	b, err := h.Get(ctx, p.name, p.ref)
	if err != nil {
		return nil, fmt.Errorf("read from home %q: %w", r.home, err)
	}
	v.blobs.put(0, p, b)
	return b, nil
}
