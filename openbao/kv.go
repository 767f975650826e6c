package openbao

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mandate-sam/mandate"
)

// KV keeps sealed grants in a KV engine of version 2: a secret for each name,
// below a path, and a version of it for each refresh token.
//
// The token needs "create", "read" and "update" on MOUNT/data/PATH/*, and
// "read" and "delete" on MOUNT/metadata/PATH/*. Without that "delete" what is
// destroyed leaves its name and its times, and "update" on MOUNT/destroy/PATH/*
// is needed.
type KV struct {
	client      *Client
	mount, path string

	// mu guards seen: the current version of each name, as far as known.
	mu   sync.Mutex
	seen map[string]int64
}

// KV returns the home of grants below a path of a mount. The path may be empty.
func (c *Client) KV(mount, path string) (*KV, error) {
	if err := CheckPath("mount", mount); err != nil {
		return nil, err
	}
	if path != "" {
		if err := CheckPath("path", path); err != nil {
			return nil, err
		}
		path += "/"
	}
	return &KV{client: c, mount: mount, path: path, seen: make(map[string]int64)}, nil
}

// field is the one that a version has.
const field = "sealed"

// conflicts is how often somebody else may have been faster.
const conflicts = 8

// A version is what the API says of one.
type version struct {
	Version   int64  `json:"version"`
	Deletion  string `json:"deletion_time"`
	Destroyed bool   `json:"destroyed"`
}

// Put stores blob as a new version and returns its number.
//
// It writes only on top of the version that it knows to be current, as a mount
// may demand; so a version that is acknowledged is this blob and no other's.
// Whoever else writes makes a version of its own, and the caller's database
// decides which of them counts.
func (k *KV) Put(ctx context.Context, name string, blob []byte) (string, error) {
	if err := checkName(name); err != nil {
		return "", err
	}
	for range conflicts {
		current, err := k.current(ctx, name)
		if err != nil {
			return "", err
		}
		v, err := k.write(ctx, name, blob, current)
		if e, ok := errors.AsType[*Error](err); ok && e.Status == http.StatusBadRequest && strings.Contains(e.Message, "check-and-set parameter did not match") {
			k.forget(name)
			continue
		}
		if err != nil {
			return "", err
		}
		k.know(name, v.Version)
		if v.Deletion != "" {
			return "", fmt.Errorf("%s deletes what is stored in %s/%s by itself, at %.40s: its administrator sets delete_version_after to 0s", k.client, k.mount, k.path, v.Deletion)
		}
		return strconv.FormatInt(v.Version, 10), nil
	}
	return "", fmt.Errorf("%w: store %s at %s: somebody else was faster %d times", mandate.ErrUnavailable, name, k.client, conflicts)
}

func (k *KV) write(ctx context.Context, name string, blob []byte, current int64) (v version, err error) {
	in := map[string]any{
		"options": map[string]any{"cas": current},
		"data":    map[string]string{field: base64.StdEncoding.EncodeToString(blob)},
	}
	var out struct {
		Data version `json:"data"`
	}
	err = k.client.call(ctx, request{did: "store " + name, method: http.MethodPost, path: k.at("data", name), in: in}, &out)
	if err == nil && out.Data.Version != current+1 {
		err = fmt.Errorf("store %s at %s: the answer has version %d, want %d", name, k.client, out.Data.Version, current+1)
	}
	return out.Data, err
}

// metadata is what the API says of a name.
type metadata struct {
	Current  int64                      `json:"current_version"`
	Versions map[string]json.RawMessage `json:"versions"`
}

func (k *KV) metadata(ctx context.Context, name string) (metadata, error) {
	var out struct {
		Data metadata `json:"data"`
	}
	err := k.client.call(ctx, request{did: "look at " + name, method: http.MethodGet, path: k.at("metadata", name)}, &out)
	return out.Data, err
}

// current returns the current version of a name; 0 if there is none.
func (k *KV) current(ctx context.Context, name string) (int64, error) {
	k.mu.Lock()
	v, ok := k.seen[name]
	k.mu.Unlock()
	if ok {
		return v, nil
	}
	m, err := k.metadata(ctx, name)
	if errors.Is(err, mandate.ErrNotFound) {
		return 0, nil
	}
	return m.Current, err
}

func (k *KV) know(name string, v int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.seen[name] = v
}

func (k *KV) forget(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.seen, name)
}

// Get returns the version that Put returned. The error wraps
// [mandate.ErrNotFound] if it is not there any more.
func (k *KV) Get(ctx context.Context, name, ref string) ([]byte, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	n, err := strconv.ParseInt(ref, 10, 64)
	if err != nil || n < 1 || strconv.FormatInt(n, 10) != ref {
		return nil, fmt.Errorf("read %s: %.40q is not the number of a version", name, ref)
	}
	var out struct {
		Data struct {
			Data     map[string]string `json:"data"`
			Metadata version           `json:"metadata"`
		} `json:"data"`
	}
	err = k.client.call(ctx, request{did: "read " + name, method: http.MethodGet, path: k.at("data", name) + "?version=" + ref}, &out)
	if e, ok := errors.AsType[*Error](err); ok && e.Status == http.StatusNotFound {
		e.Advice = gone(e.answer)
	}
	if err != nil {
		return nil, err
	}
	blob, err := base64.StdEncoding.DecodeString(out.Data.Data[field])
	if err != nil || len(blob) == 0 || out.Data.Metadata.Version != n {
		return nil, fmt.Errorf("read %s at %s: what is there was not put there by this program", name, k.client)
	}
	return blob, nil
}

// gone says what became of a version, and whose move it is.
func gone(answer []byte) string {
	var out struct {
		Data struct {
			Metadata version `json:"metadata"`
		} `json:"data"`
	}
	_ = json.Unmarshal(answer, &out)
	switch m := out.Data.Metadata; {
	case m.Destroyed:
		return "the version was destroyed, and the partner must consent again"
	case m.Deletion != "":
		return "the version was deleted: the server's administrator can undelete it"
	}
	return "the version is not there: max_versions of the mount may be too small, or the secret was removed"
}

// Destroy removes a name with all its versions. If it may not be removed, its
// versions' content is destroyed, and remains says what is left of them.
// Destroying what is not there is no error.
func (k *KV) Destroy(ctx context.Context, name string) (remains string, until time.Time, err error) {
	if err := checkName(name); err != nil {
		return "", time.Time{}, err
	}
	k.forget(name)
	defer k.forget(name) // of a Put meanwhile
	err = k.client.call(ctx, request{did: "remove " + name, method: http.MethodDelete, path: k.at("metadata", name)}, nil)
	if err == nil || errors.Is(err, mandate.ErrNotFound) {
		return "", time.Time{}, nil
	}
	if !refused(err) {
		return "", time.Time{}, err
	}
	n, derr := k.destroyVersions(ctx, name)
	if derr != nil {
		return "", time.Time{}, fmt.Errorf("%w; nor can its versions be destroyed: %w", err, derr)
	}
	if n == 0 {
		return "", time.Time{}, nil
	}
	return fmt.Sprintf("the name %s and the times of %d version(s) at %s, because the token may not remove metadata; what was in them is destroyed", name, n, k.client), time.Time{}, nil
}

func (k *KV) destroyVersions(ctx context.Context, name string) (int, error) {
	m, err := k.metadata(ctx, name)
	if errors.Is(err, mandate.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var all []int64
	for v := range m.Versions {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("look at %s at %s: the answer has a version %.40q", name, k.client, v)
		}
		all = append(all, n)
	}
	if len(all) == 0 {
		return 0, nil
	}
	in := map[string]any{"versions": all}
	return len(all), k.client.call(ctx, request{did: "destroy " + name, method: http.MethodPut, path: k.at("destroy", name), in: in}, nil)
}

// at is where the API has something of a name.
func (k *KV) at(what, name string) string { return k.mount + "/" + what + "/" + k.path + name }

// checkName keeps everything out of a URL that could lead elsewhere. Names are
// made by this program, so a bad one is no caller's fault.
func checkName(name string) error {
	if len(name) > 300 || strings.Contains(name, "/") || !segments.MatchString(name) {
		return fmt.Errorf("%.100q cannot be the name of a secret: it takes letters, digits, '-', '_' and '.'", name)
	}
	return nil
}
