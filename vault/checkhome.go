package vault

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
)

// maxBlob is how long a blob in a home is at most. Key Vault takes 25,000
// characters, and Base64 makes four of three bytes.
const maxBlob = 16 << 10

// CheckHome exercises h and reports the first way in which it is not a proper
// [Home]. It is the test of every implementation, and what an operator runs
// against their own. It uses names that begin with "mandate-check-", and
// destroys them.
func CheckHome(ctx context.Context, h Home) error {
	c := checkedHome{h, "mandate-check-" + strings.ToLower(rand.Text())}
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"what is not there", c.absent},
		{"versions", c.versions},
		{"sizes", c.sizes},
		{"versions at once", c.atOnce},
		{"destruction", c.destruction},
	} {
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

type checkedHome struct {
	home Home
	name string
}

func (c *checkedHome) absent(ctx context.Context) error {
	if b, err := c.home.Get(ctx, c.name+"-absent", "1"); err == nil {
		return fmt.Errorf("for a name that is not there Get returned %d bytes and no error", len(b))
	}
	if remains, _, err := c.home.Destroy(ctx, c.name+"-absent"); err != nil || remains != "" {
		return fmt.Errorf("after Destroy of a name that is not there: got %q and error %w, want nothing", remains, err)
	}
	return nil
}

func (c *checkedHome) versions(ctx context.Context) error {
	refs := make(map[string][]byte)
	for i := range 3 {
		blob := fmt.Appendf([]byte{0, 0xff, '\n', byte(i)}, "version %d", i)
		if i == 2 {
			blob = []byte("\x00\xff\n\x00version 0") // as the first: it is another version all the same
		}
		ref, err := c.put(ctx, c.name, blob)
		if err != nil {
			return err
		}
		if refs[ref] != nil {
			return fmt.Errorf("the ref %q was returned by Put twice", ref)
		}
		refs[ref] = blob
	}
	for ref, blob := range refs {
		if err := c.has(ctx, c.name, ref, blob); err != nil {
			return err
		}
		if b, err := c.home.Get(ctx, c.name+"-absent", ref); err == nil {
			return fmt.Errorf("for another name with the same ref Get returned %d bytes and no error", len(b))
		}
	}
	for _, ref := range []string{"", "no-such-version", "00000000000000000000000000000000"} {
		if b, err := c.home.Get(ctx, c.name, ref); err == nil {
			return fmt.Errorf("for the ref %q, which no Put returned, Get returned %d bytes and no error", ref, len(b))
		}
	}
	return nil
}

// put puts a copy, which is altered afterwards.
func (c *checkedHome) put(ctx context.Context, name string, blob []byte) (string, error) {
	given := bytes.Clone(blob)
	ref, err := c.home.Put(ctx, name, given)
	clear(given)
	if err != nil {
		return "", fmt.Errorf("in Put: %w", err)
	}
	if ref == "" {
		return "", errors.New("no ref was returned by Put")
	}
	return ref, nil
}

func (c *checkedHome) has(ctx context.Context, name, ref string, want []byte) error {
	got, err := c.home.Get(ctx, name, ref)
	if err != nil {
		return fmt.Errorf("in Get: %w", err)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("from Get came %d other bytes than the %d that were put", len(got), len(want))
	}
	return nil
}

func (c *checkedHome) sizes(ctx context.Context) error {
	for _, n := range []int{1, maxBlob - 1, maxBlob} {
		blob := make([]byte, n)
		rand.Read(blob)
		ref, err := c.put(ctx, c.name, blob)
		if err != nil {
			return fmt.Errorf("%d bytes: %w", n, err)
		}
		if err := c.has(ctx, c.name, ref, blob); err != nil {
			return fmt.Errorf("%d bytes: %w", n, err)
		}
	}
	return nil
}

// atOnce finds out whether every one of several versions that are put at the
// same time is there, or was refused.
func (c *checkedHome) atOnce(ctx context.Context) error {
	var refs [atOnce]string
	var errs [atOnce]error
	var wg sync.WaitGroup
	for i := range refs {
		wg.Go(func() { refs[i], errs[i] = c.put(ctx, c.name, []byte(fmt.Sprint("at once ", i))) })
	}
	wg.Wait()
	stored := 0
	for i, ref := range refs {
		if errs[i] != nil {
			continue
		}
		stored++
		if err := c.has(ctx, c.name, ref, []byte(fmt.Sprint("at once ", i))); err != nil {
			return err
		}
	}
	if stored == 0 {
		return fmt.Errorf("none of %d was stored: %w", atOnce, errors.Join(errs[:]...))
	}
	return nil
}

func (c *checkedHome) destruction(ctx context.Context) error {
	name := c.name + "-other"
	other, err := c.put(ctx, name, []byte("another"))
	if err != nil {
		return err
	}
	ref, err := c.put(ctx, c.name, []byte("to be destroyed"))
	if err != nil {
		return err
	}
	for range 2 { // again does no harm
		if _, _, err := c.home.Destroy(ctx, c.name); err != nil {
			return fmt.Errorf("in Destroy: %w", err)
		}
		if _, err := c.home.Get(ctx, c.name, ref); err == nil {
			return errors.New("what was destroyed was returned by Get")
		}
	}
	if err := c.has(ctx, name, other, []byte("another")); err != nil {
		return fmt.Errorf("after another name was destroyed: %w", err)
	}
	_, _, err = c.home.Destroy(ctx, name)
	return err
}
