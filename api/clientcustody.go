package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// Keys tells how much is sealed with which key.
func (c *Client) Keys(ctx context.Context) (KeyStatus, error) {
	return exchange[KeyStatus](ctx, c, "GET", "/v1/keys", nil)
}

// RotateKey makes a new key, with which everything is sealed from now on.
func (c *Client) RotateKey(ctx context.Context, in RotateRequest) (Rotated, error) {
	return exchange[Rotated](ctx, c, "POST", "/v1/keys/rotate", in)
}

// ReloadKeys has every replica read its key file again.
func (c *Client) ReloadKeys(ctx context.Context) error {
	_, err := exchange[map[string]bool](ctx, c, "POST", "/v1/keys/reload", struct{}{})
	return err
}

// RetireKey takes a key with which nothing is sealed away for good.
func (c *Client) RetireKey(ctx context.Context, keyID string) error {
	_, err := exchange[map[string]bool](ctx, c, "POST", "/v1/keys/retire", RetireRequest{keyID})
	return err
}

// Rewrap brings everything under the current key. progress may be nil.
func (c *Client) Rewrap(ctx context.Context, in RewrapRequest, progress func(done, total int)) error {
	return follow(ctx, c, "/v1/keys/rewrap", in, func(l RewrapLine) (bool, error) {
		if progress != nil && l.Total > 0 {
			progress(l.Done, l.Total)
		}
		return l.Finished, said(l.Error)
	})
}

// Lockdown tells whether there is one.
func (c *Client) Lockdown(ctx context.Context) (LockStatus, error) {
	return exchange[LockStatus](ctx, c, "GET", "/v1/lockdown", nil)
}

// Lock begins a lockdown.
func (c *Client) Lock(ctx context.Context, in LockRequest) (LockStatus, error) {
	return exchange[LockStatus](ctx, c, "POST", "/v1/lockdown", in)
}

// Unlock ends it.
func (c *Client) Unlock(ctx context.Context) (LockStatus, error) {
	return exchange[LockStatus](ctx, c, "POST", "/v1/lockdown/end", struct{}{})
}

// Backup writes a copy of what the server keeps, which is to be kept in
// directory, to w. Whether all of it has come is for the reader of the copy to
// find out: its last line says so.
func (c *Client) Backup(ctx context.Context, directory string, w io.Writer) error {
	resp, err := c.do(ctx, "GET", "/v1/backup?directory="+url.QueryEscape(directory), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return problem(resp)
	}
	_, err = io.Copy(w, resp.Body)
	return err
}

// Release probes every restored grant, and lets serve those that pass.
func (c *Client) Release(ctx context.Context, each func(ReleasedGrant)) error {
	return follow(ctx, c, "/v1/restore/finish", struct{}{}, func(g ReleasedGrant) (bool, error) {
		if !g.Finished {
			each(g)
		}
		return g.Finished, said(g.Error)
	})
}

// said is an error that came as text.
func said(text string) error {
	if text == "" {
		return nil
	}
	return errors.New(text)
}

// follow makes a request that is answered in lines, until one is the last.
func follow[T any](ctx context.Context, c *Client, path string, in any, each func(T) (last bool, err error)) error {
	resp, err := c.do(ctx, "POST", path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return problem(resp)
	}
	var ended bool
	var said error
	err = lines(resp.Body, func(line []byte) bool {
		var v T
		if said = json.Unmarshal(line, &v); said == nil {
			ended, said = each(v)
		}
		return !ended && said == nil
	})
	switch {
	case said != nil || ended:
		return said
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: the server ended before it was done; ask again, and it goes on", ErrUnreachable)
	}
	return err
}
