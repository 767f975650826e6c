package openbao

import (
	"context"
	"fmt"
	"net/http"
)

// Rotate makes a new version of the key, which wraps from now on, and returns
// its ID. The token needs "update" on MOUNT/keys/KEY/rotate and "read" on
// MOUNT/keys/KEY, which serving does not.
func (t *Transit) Rotate(ctx context.Context) (keyID string, err error) {
	path := t.mount + "/keys/" + t.key
	did := "rotate " + t.mount + "/" + t.key
	if err := t.client.call(ctx, request{did: did, method: http.MethodPost, path: path + "/rotate"}, nil); err != nil {
		return "", err
	}
	var out struct {
		Data struct {
			Latest int `json:"latest_version"`
		} `json:"data"`
	}
	if err := t.client.call(ctx, request{did: did, method: http.MethodGet, path: path}, &out); err != nil {
		return "", err
	}
	if out.Data.Latest < 1 {
		return "", fmt.Errorf("%s at %s: the answer has no version", did, t.client)
	}
	return fmt.Sprint(t.prefix(), out.Data.Latest), nil
}
