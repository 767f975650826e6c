package keyvault

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strings"
)

// material is a key itself: exactly one of the three is set. It never changes.
type material struct {
	rsa *rsa.PrivateKey
	ec  *ecdsa.PrivateKey
	oct []byte

	HSM bool
}

// request is what the body of a request says about a key.
type request struct {
	Kty  string   `json:"kty"`
	Size *int     `json:"key_size"`
	Crv  string   `json:"crv"`
	Ops  []string `json:"key_ops"`
	N    octets   `json:"n"`
	E    octets   `json:"e"`
	D    octets   `json:"d"`
	P    octets   `json:"p"`
	Q    octets   `json:"q"`
	X    octets   `json:"x"`
	Y    octets   `json:"y"`
	K    octets   `json:"k"`
}

const hsmSuffix = "-HSM"

func isHSM(kty string) bool { return strings.HasSuffix(strings.ToUpper(kty), hsmSuffix) }

var curves = map[string]elliptic.Curve{"": elliptic.P256(), "P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}

// generate makes the key that is asked for. RSA keys have 2048 bits, curves
// are P-256 and symmetric keys have 256 bits, unless something else is said.
func (q request) generate() (*material, error) {
	m := &material{HSM: isHSM(q.Kty)}
	var err error
	switch strings.TrimSuffix(q.Kty, hsmSuffix) {
	case "RSA":
		size := q.size(2048)
		if !slices.Contains([]int{2048, 3072, 4096}, size) {
			return nil, badParameter("The RSA key size %d is not supported. It can be 2048, 3072 or 4096.", size)
		}
		m.rsa, err = rsa.GenerateKey(rand.Reader, size)
	case "EC":
		curve, ok := curves[q.Crv]
		if !ok {
			return nil, badParameter("The curve %q is not supported. It can be P-256, P-384 or P-521.", q.Crv)
		}
		m.ec, err = ecdsa.GenerateKey(curve, rand.Reader)
	case "oct":
		size := q.size(256)
		if !slices.Contains([]int{128, 192, 256}, size) {
			return nil, badParameter("The symmetric key size %d is not supported. It can be 128, 192 or 256.", size)
		}
		m.oct = make([]byte, size/8)
		rand.Read(m.oct) // never fails
	default:
		return nil, badKty(q.Kty)
	}
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	return m, nil
}

func badKty(kty string) error {
	return badParameter("Property kty has invalid value %q. It can be RSA, EC or oct, with or without -HSM.", kty)
}

func (q request) size(standard int) int {
	if q.Size == nil {
		return standard
	}
	return *q.Size
}

// parse reads a key that the request brings along.
func (q request) parse(hsm bool) (*material, error) {
	m := &material{HSM: hsm || isHSM(q.Kty)}
	var err error
	switch strings.TrimSuffix(q.Kty, hsmSuffix) {
	case "RSA":
		m.rsa, err = q.parseRSA()
	case "EC":
		m.ec, err = q.parseEC()
	case "oct":
		if m.oct = q.K; !slices.Contains([]int{16, 24, 32}, len(q.K)) {
			err = badParameter("Property k has invalid value.")
		}
	default:
		err = badKty(q.Kty)
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

func (q request) parseRSA() (*rsa.PrivateKey, error) {
	n, e := new(big.Int).SetBytes(q.N), new(big.Int).SetBytes(q.E)
	if bits := n.BitLen(); !slices.Contains([]int{2048, 3072, 4096}, bits) || !e.IsInt64() || e.Int64() > 1<<31-1 {
		return nil, badParameter("The RSA key is not valid: it must have 2048, 3072 or 4096 bits and a small public exponent.")
	}
	key := &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: n, E: int(e.Int64())},
		D:         new(big.Int).SetBytes(q.D),
		Primes:    []*big.Int{new(big.Int).SetBytes(q.P), new(big.Int).SetBytes(q.Q)},
	}
	if err := key.Validate(); err != nil {
		return nil, badParameter("The RSA key is not valid: n, e, d, p and q do not belong together.")
	}
	key.Precompute()
	return key, nil
}

func (q request) parseEC() (*ecdsa.PrivateKey, error) {
	curve, ok := curves[q.Crv]
	if !ok || q.Crv == "" {
		return nil, badParameter("The curve %q is not supported. It can be P-256, P-384 or P-521.", q.Crv)
	}
	d, size := q.D, (curve.Params().BitSize+7)/8
	if len(d) < size {
		d = append(make([]byte, size-len(d)), d...)
	}
	key, err := ecdsa.ParseRawPrivateKey(curve, d)
	if err != nil {
		return nil, badParameter("The EC key is not valid.")
	}
	x, y := coordinates(key)
	if new(big.Int).SetBytes(q.X).Cmp(new(big.Int).SetBytes(x)) != 0 || new(big.Int).SetBytes(q.Y).Cmp(new(big.Int).SetBytes(y)) != 0 {
		return nil, badParameter("The EC key is not valid: x, y and d do not belong together.")
	}
	return key, nil
}

// coordinates are those of the public point, in their full length.
func coordinates(key *ecdsa.PrivateKey) (x, y octets) {
	point, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, nil // only for a curve that is not in the table
	}
	half := (len(point) - 1) / 2
	return octets(point[1 : 1+half]), octets(point[1+half:])
}

// kty is the type of the key as it was asked for.
func (m *material) kty() string {
	suffix := ""
	if m.HSM {
		suffix = hsmSuffix
	}
	switch {
	case m.rsa != nil:
		return "RSA" + suffix
	case m.ec != nil:
		return "EC" + suffix
	}
	return "oct" + suffix
}

// public is the JSON Web Key of the public half.
func (m *material) public() map[string]any {
	k := map[string]any{"kty": m.kty()}
	switch {
	case m.rsa != nil:
		k["n"], k["e"] = octets(m.rsa.N.Bytes()), octets(big.NewInt(int64(m.rsa.E)).Bytes())
	case m.ec != nil:
		k["crv"] = m.ec.Curve.Params().Name
		k["x"], k["y"] = coordinates(m.ec)
	}
	return k
}

// again makes another key of the same kind and size.
func (m *material) again() (*material, error) {
	q := request{Kty: m.kty()}
	switch {
	case m.rsa != nil:
		q.Size = new(int)
		*q.Size = m.rsa.N.BitLen()
	case m.ec != nil:
		q.Crv = m.ec.Curve.Params().Name
	default:
		q.Size = new(int)
		*q.Size = len(m.oct) * 8
	}
	return q.generate()
}

// allOps are the operations that the kind of key can do.
func (m *material) allOps() []string {
	switch {
	case m.rsa != nil:
		return []string{"encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"}
	case m.ec != nil:
		return []string{"sign", "verify"}
	}
	return []string{"encrypt", "decrypt", "wrapKey", "unwrapKey"}
}

// ops checks the operations that are asked for, and returns them in Azure's
// spelling.
func (m *material) ops(asked []string) ([]string, error) {
	list := []string{}
	for _, a := range asked {
		i := slices.IndexFunc(m.allOps(), func(s string) bool { return strings.EqualFold(s, a) })
		if i < 0 {
			return nil, badParameter("Property key_ops has invalid value %q for a key of type %s.", a, m.kty())
		}
		list = append(list, m.allOps()[i])
	}
	return list, nil
}

// stored is a key inside a backup.
type stored struct {
	PKCS8 []byte `json:"pkcs8,omitempty"`
	Oct   []byte `json:"oct,omitempty"`
	HSM   bool   `json:"hsm,omitempty"`
}

// MarshalJSON implements [json.Marshaler], for backups only.
func (m *material) MarshalJSON() (b []byte, err error) {
	s := stored{Oct: m.oct, HSM: m.HSM}
	switch {
	case m.rsa != nil:
		s.PKCS8, err = x509.MarshalPKCS8PrivateKey(m.rsa)
	case m.ec != nil:
		s.PKCS8, err = x509.MarshalPKCS8PrivateKey(m.ec)
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(s)
}

// UnmarshalJSON implements [json.Unmarshaler], for backups only.
func (m *material) UnmarshalJSON(b []byte) error {
	var s stored
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	m.oct, m.HSM = s.Oct, s.HSM
	if s.PKCS8 == nil {
		return nil
	}
	key, err := x509.ParsePKCS8PrivateKey(s.PKCS8)
	if err != nil {
		return err
	}
	m.rsa, _ = key.(*rsa.PrivateKey)
	m.ec, _ = key.(*ecdsa.PrivateKey)
	return nil
}
