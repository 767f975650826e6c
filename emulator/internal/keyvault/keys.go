package keyvault

import (
	"crypto/rand"
	"slices"
	"strings"

	"github.com/mandate-sam/mandate/emulator/fault"
)

var keyOperations = slices.Concat([]operation{
	{"POST", "keys/{n}/create", keys, "create", fault.BudgetKeyCreates, (*Vault).createKey},
	{"PUT", "keys/{n}", keys, "import", fault.BudgetKeyCreates, (*Vault).importKey},
	{"POST", "keys/{n}/rotate", keys, "rotate", fault.BudgetKeyCreates, (*Vault).rotateKey},
	{"GET", "keys/{n}/rotationpolicy", keys, "getRotationPolicy", fault.BudgetKeys, (*Vault).getRotation},
	{"PUT", "keys/{n}/rotationpolicy", keys, "setRotationPolicy", fault.BudgetKeys, (*Vault).setRotation},
	{"GET", "keys/{n}", keys, "get", fault.BudgetKeys, (*Vault).getKey},
	{"GET", "keys/{n}/{v}", keys, "get", fault.BudgetKeys, (*Vault).getKey},
	{"POST", "rng", keys, "get", fault.BudgetKeys, (*Vault).random},
}, uses("encrypt"), uses("decrypt"), uses("wrapKey"), uses("unwrapKey"), uses("sign"), uses("verify"))

// uses are the places of an operation with a key: with a version, which may
// be empty, or without.
func uses(op string) []operation {
	run := func(v *Vault, c *call) (any, error) { return v.use(c, op) }
	return []operation{
		{"POST", "keys/{n}/{v}/" + op, keys, op, fault.BudgetKeys, run},
		{"POST", "keys/{n}/" + op, keys, op, fault.BudgetKeys, run},
	}
}

func (v *Vault) createKey(c *call) (any, error) {
	var in struct {
		properties
		request
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	return v.newKey(c, in.properties, in.Ops, in.generate)
}

func (v *Vault) importKey(c *call) (any, error) {
	var in struct {
		properties
		Key request `json:"key"`
		HSM bool    `json:"hsm"`
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	return v.newKey(c, in.properties, in.Key.Ops, func() (*material, error) { return in.Key.parse(in.HSM) })
}

// newKey stores a new version. The name is looked at before the key is made,
// which takes a while, and again after.
func (v *Vault) newKey(c *call, p properties, ops []string, source func() (*material, error)) (any, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	if err := v.free(c); err != nil {
		return nil, err
	}
	m, err := source()
	if err != nil {
		return nil, err
	}
	ver := &version{Enabled: true, Key: m}
	if len(ops) == 0 { // also the empty list, by which some clients mean nothing
		ops = m.allOps()
	}
	if ver.Ops, err = m.ops(ops); err != nil {
		return nil, err
	}
	p.apply(ver)
	v.mu.Lock()
	defer v.mu.Unlock()
	o, err := v.writable(keys, c.name)
	if err != nil {
		return nil, err
	}
	return v.addKey(c, o, ver), nil
}

func (v *Vault) free(c *call) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, err := v.writable(keys, c.name)
	return err
}

// addKey stores the version, and gives it the end that the key's rotation
// policy wants if it has none.
func (v *Vault) addKey(c *call, o *object, ver *version) any {
	o = v.add(c, o, ver)
	if end, ok := o.Rotation.expiry(v.now()); ok && ver.Expires == nil {
		ver.Expires = &end
	}
	return c.bundle(o, ver)
}

// rotateKey makes a new version like the latest one.
func (v *Vault) rotateKey(c *call) (any, error) {
	old, err := v.usable(c, "rotate")
	if err != nil {
		return nil, err
	}
	m, err := old.Key.again()
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	o, err := v.live(c)
	if err != nil {
		return nil, err
	}
	if o.Managed {
		return nil, managed(keys, c.name)
	}
	return v.addKey(c, o, &version{Enabled: true, Key: m, Ops: old.Ops, Tags: old.Tags}), nil
}

// getKey refuses a disabled key, although what it would show is public.
func (v *Vault) getKey(c *call) (any, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	o, ver, err := v.liveVersion(c)
	if err != nil {
		return nil, err
	}
	if !ver.Enabled {
		return nil, disabled(keys, "get")
	}
	return c.bundle(o, ver), nil
}

// usable returns a copy of the version that the call names, if it may be used
// for that. Outside its dates a key still undoes what it did.
func (v *Vault) usable(c *call, op string) (version, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, ver, err := v.liveVersion(c)
	if err != nil {
		return version{}, err
	}
	now := v.now().Unix()
	undoes := op == "decrypt" || op == "unwrapKey" || op == "verify"
	switch {
	case !ver.Enabled:
		return version{}, disabled(keys, op)
	case op != "rotate" && !slices.Contains(ver.Ops, op):
		return version{}, forbidden("KeyOperationForbidden", "Operation %s is not permitted on this key.", op)
	case op != "rotate" && !undoes && ver.Expires != nil && now >= *ver.Expires:
		return version{}, forbidden("KeyExpired", "Operation %s is not allowed on an expired key.", op)
	case op != "rotate" && !undoes && ver.NotBefore != nil && now < *ver.NotBefore:
		return version{}, forbidden("KeyNotYetValid", "Operation %s is not allowed on a key that is not yet valid.", op)
	}
	c.version = ver.ID
	return *ver, nil
}

// use does an operation with a key.
func (v *Vault) use(c *call, op string) (any, error) {
	var in struct {
		message
		Alg    string `json:"alg"`
		Digest octets `json:"digest"`
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	ver, err := v.usable(c, op)
	if err != nil {
		return nil, err
	}
	var out message
	switch op {
	case "encrypt", "wrapKey":
		out, err = ver.Key.encrypt(in.Alg, in.message)
	case "decrypt", "unwrapKey":
		out, err = ver.Key.decrypt(in.Alg, in.message)
	case "sign":
		out.Value, err = ver.Key.sign(in.Alg, in.Value)
	case "verify":
		ok, err := ver.Key.verify(in.Alg, in.Digest, in.Value)
		return map[string]any{"value": ok}, err
	}
	if err != nil {
		return nil, err
	}
	return struct {
		KID string `json:"kid"`
		message
	}{c.base + "/keys/" + c.name + "/" + c.version, out}, nil
}

const maxRandom = 128 // bytes

func (v *Vault) random(c *call) (any, error) {
	var in struct {
		Count int `json:"count"`
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if in.Count < 1 || in.Count > maxRandom {
		return nil, badParameter("Property count has invalid value. It can be 1 to %d.", maxRandom)
	}
	b := make(octets, in.Count)
	rand.Read(b) // never fails
	return map[string]any{"value": b}, nil
}

// getRotation answers with the key's rotation policy, or with the one that a
// key has that was given none.
func (v *Vault) getRotation(c *call) (any, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	o, err := v.live(c)
	if err != nil {
		return nil, err
	}
	if o.Rotation == nil {
		return (&rotation{Actions: []action{notify}}).wire(c, o), nil
	}
	return o.Rotation.wire(c, o), nil
}

func (v *Vault) setRotation(c *call) (any, error) {
	in := &rotation{}
	if err := c.decode(in); err != nil {
		return nil, err
	}
	if err := in.check(); err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	o, err := v.live(c)
	if err != nil {
		return nil, err
	}
	now := v.now().Unix()
	in.Attributes.Created, in.Attributes.Updated = now, now
	if o.Rotation != nil {
		in.Attributes.Created = o.Rotation.Attributes.Created
	}
	o.Rotation = in
	return in.wire(c, o), nil
}

func (r *rotation) wire(c *call, o *object) any {
	return map[string]any{
		"id":              c.base + "/keys/" + strings.ToLower(o.Name) + "/rotationpolicy",
		"lifetimeActions": slices.Clone(r.Actions), "attributes": r.Attributes,
	}
}
