package keyvault

import (
	"crypto/sha1"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mandate-sam/mandate/emulator/fault"
)

// family are the collections in which a certificate has an object of its
// name: itself, its key and the secret that holds both.
var family = []kind{certificates, keys, secrets}

// certificateOperations are the operations on certificates. Reading one
// spends the budget of secrets, as all that is not a key does.
var certificateOperations = func() []operation {
	const budget = fault.BudgetSecrets
	return []operation{
		{"GET", "certificates", certificates, "list", budget, (*Vault).list},
		{"POST", "certificates/restore", certificates, "restore", budget, (*Vault).restoreCertificate},
		{"GET", "certificates/{n}/versions", certificates, "list", budget, (*Vault).listVersions},
		{"GET", "certificates/{n}/policy", certificates, "get", budget, (*Vault).getPolicy},
		{"PATCH", "certificates/{n}/policy", certificates, "update", budget, (*Vault).updatePolicy},
		{"GET", "certificates/{n}/pending", certificates, "get", budget, (*Vault).getPending},
		{"POST", "certificates/{n}/create", certificates, "create", fault.BudgetKeyCreates, (*Vault).createCertificate},
		{"POST", "certificates/{n}/import", certificates, "import", fault.BudgetKeyCreates, (*Vault).importCertificate},
		{"POST", "certificates/{n}/backup", certificates, "backup", budget, (*Vault).backupCertificate},
		{"GET", "certificates/{n}", certificates, "get", budget, (*Vault).getCertificate},
		{"GET", "certificates/{n}/{v}", certificates, "get", budget, (*Vault).getCertificate},
		{"PATCH", "certificates/{n}", certificates, "update", budget, (*Vault).updateCertificate},
		{"PATCH", "certificates/{n}/{v}", certificates, "update", budget, (*Vault).updateCertificate},
		{"DELETE", "certificates/{n}", certificates, "delete", budget, each((*Vault).delete)},
		{"GET", "deletedcertificates", certificates, "list", budget, (*Vault).listDeleted},
		{"GET", "deletedcertificates/{n}", certificates, "get", budget, (*Vault).getDeleted},
		{"DELETE", "deletedcertificates/{n}", certificates, "purge", budget, each((*Vault).purge)},
		{"POST", "deletedcertificates/{n}/recover", certificates, "recover", budget, each((*Vault).recover)},
	}
}()

// each does to the key and the secret of a certificate what is done to the
// certificate, and answers about the certificate.
func each(do func(*Vault, *call) (any, error)) func(*Vault, *call) (any, error) {
	return func(v *Vault, c *call) (any, error) {
		out, err := do(v, c)
		if err != nil {
			return nil, err
		}
		for _, k := range family[1:] {
			part := *c
			part.kind, part.asCertificate = k, true
			if _, err := do(v, &part); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
}

// managed refuses: the object belongs to a certificate, through which alone it changes.
func managed(k kind, name string) error {
	return forbidden("", "The %s %s is managed by a certificate, and can only be changed through it.", k.word(), name)
}

// certificateBundle adds what only certificates have.
func (c *call) certificateBundle(o *object, ver *version) map[string]any {
	m := c.properties(ver)
	delete(m, "contentType")
	m["id"], m["cer"], m["x5t"] = c.id(o, ver.ID), ver.Certificate, thumbprint(ver)
	m["kid"], m["sid"] = c.base+"/keys/"+o.Name+"/"+ver.ID, c.base+"/secrets/"+o.Name+"/"+ver.ID
	m["policy"] = c.policy(o)
	return m
}

// thumbprint is the SHA-1 hash of the certificate.
func thumbprint(ver *version) octets {
	sum := sha1.Sum(ver.Certificate)
	return sum[:]
}

// policy is the certificate's policy as answers show it.
func (c *call) policy(o *object) map[string]any {
	m := maps.Clone(o.Policy)
	m["id"] = c.base + "/certificates/" + o.Name + "/policy"
	m["attributes"] = map[string]any{"enabled": true, "created": o.Versions[0].Created, "updated": o.latest().Updated}
	return m
}

// policyOf is the policy of a certificate that comes without a complete one.
func policyOf(l leaf, contentType string, in policyBody) map[string]any {
	m := l.key
	issuer := in.Issuer
	if issuer.Name == "" {
		issuer.Name = "Unknown"
	}
	props := map[string]any{"exportable": true, "kty": m.kty(), "reuse_key": false}
	if m.rsa != nil {
		props["key_size"] = m.rsa.N.BitLen()
	} else {
		props["crv"], props["key_size"] = m.ec.Curve.Params().Name, m.ec.Curve.Params().BitSize
	}
	crt := l.certificate
	return map[string]any{
		"key_props": props, "secret_props": map[string]any{"contentType": contentType}, "issuer": map[string]any{"name": issuer.Name},
		"x509_props": map[string]any{
			"subject": crt.Subject.String(), "ekus": []string{}, "key_usage": []string{"digitalSignature", "keyEncipherment"},
			"validity_months": int(crt.NotAfter.Sub(crt.NotBefore).Hours() / 24 / 30), "basic_constraints": map[string]any{"ca": crt.IsCA},
		},
		"lifetime_actions": []any{map[string]any{"trigger": map[string]any{"lifetime_percentage": 80}, "action": map[string]any{"action_type": "EmailContacts"}}},
	}
}

// policyBody is what the emulator heeds of a certificate's policy.
type policyBody struct {
	Issuer struct {
		Name string `json:"name"`
	} `json:"issuer"`
	Key struct {
		Kty  string `json:"kty"`
		Size *int   `json:"key_size"`
		Crv  string `json:"crv"`
	} `json:"key_props"`
	Secret struct {
		ContentType string `json:"contentType"`
	} `json:"secret_props"`
	X509 struct {
		Subject  string `json:"subject"`
		Validity *int   `json:"validity_months"`
	} `json:"x509_props"`
}

// importCertificate stores a certificate that comes with its key, in PFX
// (base64) or PEM.
func (v *Vault) importCertificate(c *call) (any, error) {
	var in struct {
		properties
		Value    *string    `json:"value"`
		Password string     `json:"pwd"`
		Policy   policyBody `json:"policy"`
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if in.Value == nil {
		return nil, badParameter("Property value has invalid value.")
	}
	if err := in.check(); err != nil {
		return nil, err
	}
	l, contentType, err := parseCertificate(*in.Value, in.Password)
	if err != nil {
		return nil, err
	}
	if t := in.Policy.Secret.ContentType; t != "" && t != contentType {
		return nil, badParameter("The specified content type %s does not match the certificate.", t)
	}
	return v.addCertificate(c, l, contentType, in.properties, in.Policy, "")
}

// addCertificate stores a new version, with the same id for the certificate,
// its key and its secret.
func (v *Vault) addCertificate(c *call, l leaf, contentType string, p properties, policy policyBody, operation string) (any, error) {
	value, err := l.secret(contentType)
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	there := map[kind]*object{}
	for _, k := range family {
		o, err := v.place(k, c.name)
		if err != nil {
			return nil, err
		}
		if k != certificates && o != nil && !o.Managed {
			return nil, conflict("", "A %s with name %s is already in this key vault, so that a certificate cannot have this name.", k.word(), c.name)
		}
		there[k] = o
	}
	nbf, exp := l.certificate.NotBefore.Unix(), l.certificate.NotAfter.Unix()
	ver := version{Enabled: true}
	p.apply(&ver)
	ver.NotBefore, ver.Expires = &nbf, &exp
	cert, key, secret := ver, ver, ver
	cert.Certificate = l.certificate.Raw
	key.Key, key.Ops = l.key, l.key.allOps()
	secret.Value, secret.ContentType = value, &contentType
	o := v.add(c, there[certificates], &cert)
	o.Policy, o.Operation = policyOf(l, contentType, policy), operation
	for k, made := range map[kind]*version{keys: &key, secrets: &secret} {
		made.Tags = maps.Clone(cert.Tags)
		part := *c
		part.kind = k
		v.add(&part, there[k], made).Managed = true
		made.ID = cert.ID
	}
	return c.bundle(o, &cert), nil
}

func (v *Vault) getCertificate(c *call) (any, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	o, ver, err := v.liveVersion(c)
	if err != nil {
		return nil, err
	}
	return c.bundle(o, ver), nil
}

// updateCertificate changes tags and whether it is enabled, which its key and
// secret are then, too. Its dates are those of the certificate itself.
func (v *Vault) updateCertificate(c *call) (any, error) {
	var in properties
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if err := in.check(); err != nil {
		return nil, err
	}
	in.Attributes.NotBefore, in.Attributes.Expires = nil, nil
	v.mu.Lock()
	defer v.mu.Unlock()
	o, ver, err := v.liveVersion(c)
	if err != nil {
		return nil, err
	}
	for _, k := range family {
		if part := v.shelves[k].find(c.identity(), v.now()); part != nil && part.version(ver.ID) != nil {
			in.apply(part.version(ver.ID))
			part.version(ver.ID).Updated = v.now().Unix()
		}
	}
	return c.bundle(o, ver), nil
}

func (v *Vault) getPolicy(c *call) (any, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	o, err := v.live(c)
	if err != nil {
		return nil, err
	}
	return c.policy(o), nil
}

// updatePolicy keeps what the body says, for showing it again.
func (v *Vault) updatePolicy(c *call) (any, error) {
	var known policyBody
	var in map[string]any
	if err := c.decode(&known); err != nil {
		return nil, err
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	o, err := v.live(c)
	if err != nil {
		return nil, err
	}
	p := maps.Clone(o.Policy)
	for _, name := range []string{"key_props", "secret_props", "x509_props", "lifetime_actions", "issuer"} {
		if in[name] != nil {
			p[name] = in[name]
		}
	}
	o.Policy = p
	return c.policy(o), nil
}

// createCertificate makes a certificate that signs itself. It is there when
// this is answered, though the answer does not say so yet.
func (v *Vault) createCertificate(c *call) (any, error) {
	var in struct {
		properties
		Policy policyBody `json:"policy"`
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if err := in.check(); err != nil {
		return nil, err
	}
	if !strings.EqualFold(in.Policy.Issuer.Name, "Self") {
		return nil, badParameter("The issuer %q of the policy is not known in this key vault.", in.Policy.Issuer.Name)
	}
	contentType := in.Policy.Secret.ContentType
	switch contentType {
	case "":
		contentType = typePFX
	case typePFX, typePEM:
	default:
		return nil, badParameter("Property contentType has invalid value.")
	}
	l, err := in.Policy.selfSigned(v.now())
	if err != nil {
		return nil, err
	}
	id := strings.ReplaceAll(v.cfg.Chance.GUID(), "-", "")
	if _, err := v.addCertificate(c, l, contentType, in.properties, in.Policy, id); err != nil {
		return nil, err
	}
	m, err := v.getPending(c)
	if err != nil {
		return nil, err
	}
	body := m.(map[string]any)
	body["status"], body["status_details"] = "inProgress", "Pending certificate created. Certificate request is in progress. This may take some time based on the issuer provider. Please check again later."
	delete(body, "target")
	return accepted(body), nil
}

// accepted is an answer about something that is still going on.
type accepted map[string]any

// getPending says how the making of the certificate goes: it is done.
func (v *Vault) getPending(c *call) (any, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	o, err := v.live(c)
	if err != nil {
		return nil, err
	}
	if o.Operation == "" {
		return nil, &refusal{status: 404, code: "PendingCertificateNotFound", text: "Pending certificate not found: " + c.name}
	}
	key := v.shelves[keys].find(c.identity(), v.now())
	request, err := requestFor(key.latest().Key, o.latest().Certificate)
	if err != nil {
		return nil, err
	}
	base := c.base + "/certificates/" + o.Name
	return map[string]any{
		"id": base + "/pending", "issuer": map[string]any{"name": "Self"}, "csr": request, "cancellation_requested": false,
		"status": "completed", "target": base, "request_id": o.Operation,
	}, nil
}

// backupCertificate puts the certificate, its key and its secret into one
// backup.
func (v *Vault) backupCertificate(c *call) (any, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	o, err := v.live(c)
	if err != nil {
		return nil, err
	}
	if len(o.Versions) > maxBackup {
		return nil, badParameter("The certificate has too many versions to be backed up. The maximum is %d.", maxBackup)
	}
	all := map[kind]*object{}
	for _, k := range family {
		all[k] = v.shelves[k].find(c.identity(), v.now())
	}
	blob, err := v.cfg.Seal.close(certificates, all)
	if err != nil {
		return nil, err
	}
	return map[string]any{"value": blob}, nil
}

func (v *Vault) restoreCertificate(c *call) (any, error) {
	var in struct {
		Value octets `json:"value"`
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	all := map[kind]*object{}
	if err := v.cfg.Seal.open(certificates, in.Value, &all); err != nil {
		return nil, err
	}
	if len(all) != len(family) || slices.ContainsFunc(family, func(k kind) bool { return all[k] == nil }) {
		return nil, fmt.Errorf("restore certificate: a part is missing")
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, k := range family {
		there, err := v.place(k, all[k].Name)
		if err != nil {
			return nil, err
		}
		if there != nil {
			return nil, conflict("", "There was a conflict restoring the certificate '%s' because a %s of that name already exists.", strings.ToLower(all[k].Name), k.word())
		}
	}
	for _, k := range family {
		v.put(k, all[k])
	}
	o := all[certificates]
	return c.bundle(o, o.latest()), nil
}

// selfSigned makes the certificate that the policy describes.
func (p policyBody) selfSigned(now time.Time) (leaf, error) {
	kty := p.Key.Kty
	if kty == "" {
		kty = "RSA"
	}
	if strings.TrimSuffix(kty, hsmSuffix) == "oct" {
		return leaf{}, badKty(kty)
	}
	subject, err := parseSubject(p.X509.Subject)
	if err != nil {
		return leaf{}, err
	}
	months := 12
	if p.X509.Validity != nil {
		months = *p.X509.Validity
	}
	if months < 1 || months > 1200 {
		return leaf{}, badParameter("Property validity_months has invalid value.")
	}
	m, err := request{Kty: kty, Size: p.Key.Size, Crv: p.Key.Crv}.generate()
	if err != nil {
		return leaf{}, err
	}
	return sign(m, subject, now, now.AddDate(0, months, 0))
}
