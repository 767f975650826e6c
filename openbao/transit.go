package openbao

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"

	"github.com/mandate-sam/mandate"
)

// purpose is bound to everything that is wrapped, where the key takes
// additional data: what somebody else encrypted with the same key does not
// unwrap here, nor what we wrapped elsewhere.
const purpose = "mandate wrapped data key, 1"

// A Transit wraps data keys with a key of the transit engine. The ID of a key
// is "transit:", the namespace, the mount and the name, and its version behind
// ":v". After a rotation the new version wraps, and the old ones still unwrap
// for as long as the key's min_decryption_version lets them.
//
// The token needs "update" on MOUNT/encrypt/KEY and MOUNT/decrypt/KEY. It is
// better without "create": with it a misspelt name makes a new key.
type Transit struct {
	client     *Client
	mount, key string
	plain      atomic.Bool // the key takes no additional data; learnt from a refusal
}

// Transit returns the wrapper for a key.
func (c *Client) Transit(mount, key string) (*Transit, error) {
	if err := errors.Join(CheckPath("mount", mount), CheckPath("key", key)); err != nil {
		return nil, err
	}
	if strings.Contains(key, "/") {
		return nil, mandate.Invalid("key", "%q must be a name without '/'", key)
	}
	return &Transit{client: c, mount: mount, key: key}, nil
}

// ciphertext is what the engine makes: "vault:v3:" and base64.
var ciphertext = regexp.MustCompile(`^vault:v([1-9][0-9]{0,8}):[0-9A-Za-z+/=]+$`)

// Wrap encrypts plain with the newest version of the key.
func (t *Transit) Wrap(ctx context.Context, plain []byte) (string, []byte, error) {
	text := base64.StdEncoding.EncodeToString(plain)
	var out struct {
		Data struct {
			Ciphertext string `json:"ciphertext"`
		} `json:"data"`
	}
	if err := t.call(ctx, "wrap a data key", "encrypt", map[string]string{"plaintext": text}, &out, text); err != nil {
		return "", nil, err
	}
	m := ciphertext.FindStringSubmatch(out.Data.Ciphertext)
	if m == nil {
		return "", nil, fmt.Errorf("wrap a data key at %s: the answer has no ciphertext", t.client)
	}
	return t.prefix() + m[1], []byte(m[0]), nil
}

// Unwrap decrypts what Wrap made.
func (t *Transit) Unwrap(ctx context.Context, keyID string, wrapped []byte) ([]byte, error) {
	m := ciphertext.FindStringSubmatch(string(wrapped))
	if m == nil || keyID != t.prefix()+m[1] {
		return nil, fmt.Errorf("unwrap a data key: %.200q is not the version of %s/%s that it was wrapped with", keyID, t.mount, t.key)
	}
	// Servers read base64 leniently: bits that mean nothing could be changed.
	if _, err := base64.StdEncoding.Strict().DecodeString(strings.SplitN(m[0], ":", 3)[2]); err != nil {
		return nil, fmt.Errorf("unwrap a data key: what was wrapped with %s/%s was altered", t.mount, t.key)
	}
	var out struct {
		Data struct {
			Plaintext string `json:"plaintext"`
		} `json:"data"`
	}
	if err := t.call(ctx, "unwrap a data key", "decrypt", map[string]string{"ciphertext": m[0]}, &out); err != nil {
		return nil, err
	}
	plain, err := base64.StdEncoding.DecodeString(out.Data.Plaintext)
	if err != nil {
		return nil, fmt.Errorf("unwrap a data key at %s: the answer has no plaintext", t.client)
	}
	return plain, nil
}

// Has reports whether keyID is of a version of this key.
func (t *Transit) Has(keyID string) bool { return strings.HasPrefix(keyID, t.prefix()) }

func (t *Transit) prefix() string {
	namespace := ""
	if t.client.cfg.Namespace != "" {
		namespace = t.client.cfg.Namespace + "/"
	}
	return "transit:" + namespace + t.mount + "/" + t.key + ":v"
}

// call asks with additional data, and without once the server has said that
// this kind of key takes none: an RSA key.
func (t *Transit) call(ctx context.Context, did, operation string, in map[string]string, out any, secret ...string) error {
	r := request{did: did + " with " + t.mount + "/" + t.key, method: http.MethodPost, path: t.mount + "/" + operation + "/" + t.key, in: in, secret: secret}
	if t.plain.Load() {
		return t.client.call(ctx, r, out)
	}
	in["associated_data"] = base64.StdEncoding.EncodeToString([]byte(purpose))
	err := t.client.call(ctx, r, out)
	if e, ok := errors.AsType[*Error](err); ok && e.Status == http.StatusBadRequest && strings.Contains(e.Message, "associated_data") {
		t.plain.Store(true)
		delete(in, "associated_data")
		return t.client.call(ctx, r, out)
	}
	return err
}
