package keyvault

import "github.com/mandate-sam/mandate/emulator/fault"

const (
	maxValue       = 25 << 10 // bytes
	maxContentType = 255
)

var secretOperations = []operation{
	{"PUT", "secrets/{n}", secrets, "set", fault.BudgetSecretCreates, (*Vault).setSecret},
	{"GET", "secrets/{n}", secrets, "get", fault.BudgetSecrets, (*Vault).getSecret},
	{"GET", "secrets/{n}/{v}", secrets, "get", fault.BudgetSecrets, (*Vault).getSecret},
}

func checkContentType(s *string) error {
	if s != nil && len(*s) > maxContentType {
		return badParameter("The content type is too long. The maximum is %d characters.", maxContentType)
	}
	return nil
}

// setSecret makes a new version. It inherits nothing from the one before.
func (v *Vault) setSecret(c *call) (any, error) {
	var in struct {
		properties
		Value       *string `json:"value"`
		ContentType *string `json:"contentType"`
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	switch {
	case in.Value == nil:
		return nil, badParameter("Property value has invalid value.")
	case len(*in.Value) > maxValue:
		return nil, badParameter("The secret value is too large. The maximum is %d bytes.", maxValue)
	}
	if err := in.check(); err != nil {
		return nil, err
	}
	if err := checkContentType(in.ContentType); err != nil {
		return nil, err
	}
	ver := &version{Enabled: true, Value: *in.Value, ContentType: in.ContentType}
	in.apply(ver)
	v.mu.Lock()
	defer v.mu.Unlock()
	o, err := v.writable(secrets, c.name)
	if err != nil {
		return nil, err
	}
	o = v.add(c, o, ver)
	return withValue(c.bundle(o, ver), ver), nil
}

// getSecret returns the value. Its dates are for the reader to heed; only a
// disabled secret is refused.
func (v *Vault) getSecret(c *call) (any, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	o, ver, err := v.liveVersion(c)
	if err != nil {
		return nil, err
	}
	if !ver.Enabled {
		return nil, disabled(secrets, "get")
	}
	return withValue(c.bundle(o, ver), ver), nil
}

func withValue(m map[string]any, ver *version) map[string]any {
	m["value"] = ver.Value
	return m
}
