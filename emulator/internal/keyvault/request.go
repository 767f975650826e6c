package keyvault

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

const (
	maxBody    = 1 << 20
	maxRestore = 32 << 20 // 500 versions of 25 KB, twice in base64, fit
)

// A kind is one of the three sorts of object, by the name of its collection.
type kind string

const (
	secrets      kind = "secrets"
	keys         kind = "keys"
	certificates kind = "certificates"
)

// word is the kind in the middle of a sentence, noun at the start of a code.
func (k kind) word() string { return strings.TrimSuffix(string(k), "s") }

func (k kind) noun() string {
	switch k {
	case keys:
		return "Key"
	case certificates:
		return "Certificate"
	}
	return "Secret"
}

// A call is a request that has a place in the API.
type call struct {
	kind    kind
	base    string // https://host:port by which the client came
	path    string // as it would be written canonically
	query   url.Values
	name    string // as written; see identity
	version string // "": the latest
	verb    string // last part of the path, in lower case
	body    []byte
	level   string // how what is deleted can be recovered

	// asCertificate is set for what is done to the key or the secret of a
	// certificate because it is done to the certificate.
	asCertificate bool
}

// identity is the name as it is compared.
func (c *call) identity() string { return strings.ToLower(c.name) }

// operation is one row of the API. In the path {n} is a name and {v} a
// version, which may be empty for the latest one.
type operation struct {
	method, path string
	kind         kind
	permission   string
	budget       string
	run          func(*Vault, *call) (any, error)
}

var objectName = regexp.MustCompile(`^[0-9A-Za-z-]{1,127}$`)

// read finds the operation that the request asks for. Paths are compared
// without regard to case; a slash at the end does not matter, except that
// after a name it stands for an empty version, which is the latest one.
func (v *Vault) read(w http.ResponseWriter, r *http.Request) (*call, *operation, error) {
	c := &call{base: "https://" + r.Host, query: r.URL.Query(), level: "Recoverable+Purgeable"}
	if v.purgeProtected() {
		c.level = "Recoverable"
	}
	if c.query.Get("api-version") == "" {
		return nil, nil, badParameter("api-version must be specified")
	}
	method, err := methodOf(r)
	if err != nil {
		return nil, nil, err
	}
	op, err := c.find(method, strings.Split(strings.TrimPrefix(strings.TrimSuffix(r.URL.Path, "/"), "/"), "/"))
	if err != nil {
		return nil, nil, err
	}
	limit := int64(maxBody)
	if strings.HasSuffix(op.path, "/restore") {
		limit = maxRestore
	}
	c.body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, nil, &refusal{status: 413, code: "RequestEntityTooLarge", text: "The request body is too large."}
	} else if err != nil {
		return nil, nil, badParameter("The request body could not be read.")
	}
	return c, op, nil
}

// methodOf is the method that is meant: a POST may carry another one in a
// header, for clients behind something that lets no other through.
func methodOf(r *http.Request) (string, error) {
	o := strings.ToUpper(r.Header.Get("X-HTTP-METHOD"))
	switch {
	case o == "" || r.Method != http.MethodPost:
		return r.Method, nil
	case o == "GET" || o == "PUT" || o == "PATCH" || o == "DELETE" || o == "POST":
		return o, nil
	}
	return "", badParameter("The X-HTTP-METHOD header has an invalid value.")
}

// find returns the operation at that place, and fills in what it names.
func (c *call) find(method string, parts []string) (*operation, error) {
	known := false
	for i := range operations {
		op := &operations[i]
		if !c.match(op, parts) {
			continue
		}
		known = true
		if op.method != method {
			continue
		}
		if strings.Contains(op.path, "{n}") && !objectName.MatchString(c.name) {
			return nil, badParameter("The request URI contains an invalid name: %s", c.name)
		}
		return op, nil
	}
	switch strings.ToLower(parts[0]) {
	case "storage", "deletedstorage":
		return nil, &refusal{status: 501, code: "NotImplemented", text: "The emulator has secrets, keys and certificates only."}
	}
	if known {
		return nil, &refusal{status: 405, code: "BadParameter", text: "Method " + method + " does not allow operation '" + c.verb + "'"}
	}
	return nil, &refusal{status: 404, code: "NotFound", text: "The requested resource was not found."}
}

// match reports whether the parts are those of the operation's path, and
// fills in what they name if so. The longer paths come first in the table.
func (c *call) match(op *operation, parts []string) bool {
	pattern := strings.Split(op.path, "/")
	if len(pattern) != len(parts) {
		return false
	}
	name, version := "", ""
	for i, p := range pattern {
		switch {
		case p == "{n}":
			name = parts[i]
		case p == "{v}":
			version = parts[i]
		case !strings.EqualFold(p, parts[i]):
			return false
		}
	}
	c.kind, c.name, c.version = op.kind, name, strings.ToLower(version)
	c.verb = strings.ToLower(parts[len(parts)-1])
	c.path = "/" + strings.Replace(op.path, "{n}", name, 1)
	return true
}

// decode reads the body. Fields that nobody knows are let pass: they belong
// to a later version of the API.
func (c *call) decode(v any) error {
	if len(c.body) == 0 {
		return badParameter("Request body not specified")
	}
	if err := json.Unmarshal(c.body, v); err != nil {
		return badParameter("The request body is not valid JSON, or a property has a value of the wrong type.")
	}
	return nil
}

// wantsHSM reports whether the body asks for a key in an HSM.
func (c *call) wantsHSM() bool {
	var in struct {
		Kty string `json:"kty"`
		HSM bool   `json:"hsm"`
		Key struct {
			Kty string `json:"kty"`
		} `json:"key"`
	}
	json.Unmarshal(c.body, &in) // the operation itself says what is wrong with it
	return in.HSM || isHSM(in.Kty) || isHSM(in.Key.Kty)
}

// octets are bytes that JSON shows in base64url without padding.
type octets []byte

func (b octets) MarshalText() ([]byte, error) {
	return []byte(base64.RawURLEncoding.EncodeToString(b)), nil
}

// UnmarshalText accepts padding, as Azure does.
func (b *octets) UnmarshalText(text []byte) error {
	v, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(string(text), "="))
	*b = v
	return err
}
