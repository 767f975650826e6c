package keyvault

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// A shelf holds the objects of one kind. Its methods are called with the
// vault's lock held. The zero value is empty.
type shelf struct {
	objects map[string]*object // by identity
}

// An object is a secret, a key or a certificate with all its versions.
type object struct {
	Name     string     `json:"name"` // as it was first written
	Versions []*version `json:"versions"`
	Rotation *rotation  `json:"rotation,omitempty"` // keys

	Managed   bool           `json:"managed,omitempty"`   // keys and secrets that belong to a certificate
	Policy    map[string]any `json:"policy,omitempty"`    // certificates; replaced, never changed
	Operation string         `json:"operation,omitempty"` // certificates that were made here: the request's id

	deleted time.Time // zero: it is not
	purge   time.Time // when a deleted object goes for good
	settled time.Time // when the last deletion or recovery is done, by the machine's clock
}

// A version is one value of a secret or one key. Times are in Unix seconds.
type version struct {
	ID          string            `json:"id"`
	Created     int64             `json:"created"`
	Updated     int64             `json:"updated"`
	Enabled     bool              `json:"enabled"`
	NotBefore   *int64            `json:"nbf,omitempty"`
	Expires     *int64            `json:"exp,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	ContentType *string           `json:"content_type,omitempty"` // secrets
	Value       string            `json:"value,omitempty"`        // secrets
	Key         *material         `json:"key,omitempty"`          // keys
	Ops         []string          `json:"ops,omitempty"`          // keys
	Certificate []byte            `json:"certificate,omitempty"`  // certificates: DER
}

// version returns the one with that id, the latest if it is empty, or nil.
func (o *object) version(id string) *version {
	if id == "" {
		return o.latest()
	}
	for _, v := range o.Versions {
		if v.ID == id {
			return v
		}
	}
	return nil
}

func (o *object) latest() *version { return o.Versions[len(o.Versions)-1] }

// find returns the object, deleted or not, unless its time has come.
func (s *shelf) find(id string, now time.Time) *object {
	o := s.objects[id]
	if o != nil && !o.deleted.IsZero() && !now.Before(o.purge) {
		delete(s.objects, id)
		return nil
	}
	return o
}

// Whether a deletion or a recovery is done goes by the machine's clock: it is
// waited for, and an object must not be in between for as long as the
// emulator's clock was put back.
func (o *object) isLive() bool    { return o.deleted.IsZero() && o.isSettled() }
func (o *object) isDeleted() bool { return !o.deleted.IsZero() && o.isSettled() }
func (o *object) isSettled() bool { return !time.Now().Before(o.settled) }

// live returns the object that the call names, if it is not deleted.
func (v *Vault) live(c *call) (*object, error) {
	o := v.shelves[c.kind].find(c.identity(), v.now())
	if o == nil || !o.isLive() {
		return nil, notFound(c.kind, c.name)
	}
	return o, nil
}

// liveVersion returns the version that the call names.
func (v *Vault) liveVersion(c *call) (*object, *version, error) {
	o, err := v.live(c)
	if err != nil {
		return nil, nil, err
	}
	ver := o.version(c.version)
	if ver == nil {
		return nil, nil, notFound(c.kind, c.name+"/"+c.version)
	}
	return o, ver, nil
}

// writable returns the object that a new version is for, nil if it would be
// the first one. What belongs to a certificate gets new versions with it only.
func (v *Vault) writable(k kind, name string) (*object, error) {
	o, err := v.place(k, name)
	if err == nil && o != nil && o.Managed {
		return nil, managed(k, name)
	}
	return o, err
}

// place is writable for certificates. A name that belongs to a deleted object
// is not free.
func (v *Vault) place(k kind, name string) (*object, error) {
	o := v.shelves[k].find(strings.ToLower(name), v.now())
	switch {
	case o == nil || o.isLive():
		return o, nil
	case o.deleted.IsZero():
		return nil, conflict("ObjectIsBeingRecovered", "%s %s is currently being recovered.", k.noun(), name)
	case !o.isDeleted():
		return nil, v.beingDeleted(k, name)
	}
	return nil, conflict("ObjectIsDeletedButRecoverable", "%s %s is currently in a deleted but recoverable state, and its name cannot be reused; in this state, the %s can only be recovered or purged.", k.noun(), name, k.word())
}

func (v *Vault) beingDeleted(k kind, name string) error {
	return conflict("ObjectIsBeingDeleted", "%s %s is currently being deleted.", k.noun(), name)
}

// deletedObject returns the object that the call names, if it is deleted.
func (v *Vault) deletedObject(c *call) (*object, error) {
	o := v.shelves[c.kind].find(c.identity(), v.now())
	if o == nil || !o.isDeleted() {
		return nil, notDeleted(c.kind, c.name)
	}
	return o, nil
}

// add stores a new version and returns its object.
func (v *Vault) add(c *call, o *object, ver *version) *object {
	ver.ID = strings.ReplaceAll(v.cfg.Chance.GUID(), "-", "")
	ver.Created = v.now().Unix()
	ver.Updated = ver.Created
	if o == nil {
		o = &object{Name: c.name}
		v.put(c.kind, o)
	}
	o.Versions = append(o.Versions, ver)
	return o
}

func (v *Vault) put(k kind, o *object) {
	s := v.shelves[k]
	if s.objects == nil {
		s.objects = map[string]*object{}
	}
	s.objects[strings.ToLower(o.Name)] = o
}

// settling is when a deletion or a recovery that begins now is done.
func (v *Vault) settling() time.Time {
	return time.Now().Add(time.Duration(v.cfg.Dials.Dials().KeyVault.SettleSeconds) * time.Second)
}

// attributes are what a request says about a version. Nothing said is nil.
type attributes struct {
	Enabled   *bool  `json:"enabled"`
	NotBefore *int64 `json:"nbf"`
	Expires   *int64 `json:"exp"`
}

// properties are the fields that all kinds of object have.
type properties struct {
	Attributes attributes         `json:"attributes"`
	Tags       map[string]*string `json:"tags"`
}

func (p properties) check() error {
	for _, t := range []*int64{p.Attributes.NotBefore, p.Attributes.Expires} {
		if t != nil && *t < 0 {
			return badParameter("An attribute has an invalid date.")
		}
	}
	if len(p.Tags) > 15 {
		return badParameter("There are too many tags. The maximum is 15.")
	}
	for name, value := range p.Tags {
		if len(name) > 512 || value != nil && len(*value) > 512 {
			return badParameter("A tag is too long. The maximum is 512 characters for its name and for its value.")
		}
	}
	return nil
}

// apply changes what the request said, and leaves the rest.
func (p properties) apply(ver *version) {
	if p.Attributes.Enabled != nil {
		ver.Enabled = *p.Attributes.Enabled
	}
	if p.Attributes.NotBefore != nil {
		ver.NotBefore = p.Attributes.NotBefore
	}
	if p.Attributes.Expires != nil {
		ver.Expires = p.Attributes.Expires
	}
	if p.Tags == nil {
		return
	}
	ver.Tags = map[string]string{}
	for name, value := range p.Tags {
		if ver.Tags[name] = ""; value != nil {
			ver.Tags[name] = *value
		}
	}
}

// attributes is the attributes object of an answer.
func (c *call) attributes(ver *version) map[string]any {
	a := map[string]any{
		"enabled": ver.Enabled, "created": ver.Created, "updated": ver.Updated,
		"recoveryLevel": c.level, "recoverableDays": retention,
	}
	if ver.NotBefore != nil {
		a["nbf"] = *ver.NotBefore
	}
	if ver.Expires != nil {
		a["exp"] = *ver.Expires
	}
	if ver.Key != nil {
		a["exportable"] = false
	}
	return a
}

// id is the URL of an object, of one version if it has one, at the address by
// which the client came.
func (c *call) id(o *object, version string) string {
	id := c.base + "/" + string(c.kind) + "/" + o.Name
	if version != "" {
		id += "/" + version
	}
	return id
}

// properties are the fields that all answers about a version have.
func (c *call) properties(ver *version) map[string]any {
	m := map[string]any{"attributes": c.attributes(ver)}
	if ver.Tags != nil {
		m["tags"] = maps.Clone(ver.Tags)
	}
	if ver.ContentType != nil {
		m["contentType"] = *ver.ContentType
	}
	return m
}

// item is an entry of a list: of all objects if version is empty, of the
// versions of one otherwise.
func (c *call) item(o *object, ver *version, version string) map[string]any {
	m := c.properties(ver)
	name := "id"
	if c.kind == keys {
		name = "kid"
	}
	m[name] = c.id(o, version)
	if o.Managed {
		m["managed"] = true
	}
	if c.kind == certificates {
		m["x5t"] = thumbprint(ver)
	}
	return m
}

// bundle is an object as it is answered, without a secret's value.
func (c *call) bundle(o *object, ver *version) map[string]any {
	if c.kind == certificates {
		return c.certificateBundle(o, ver)
	}
	m := c.properties(ver)
	if o.Managed {
		m["managed"] = true
	}
	if c.kind == secrets {
		m["id"] = c.id(o, ver.ID)
		if o.Managed {
			m["kid"] = c.base + "/keys/" + o.Name + "/" + ver.ID
		}
		return m
	}
	k := ver.Key.public()
	k["kid"] = c.id(o, ver.ID)
	k["key_ops"] = slices.Clone(ver.Ops)
	m["key"] = k
	return m
}

// addDeleted adds what only deleted objects have.
func (c *call) addDeleted(m map[string]any, o *object) map[string]any {
	m["recoveryId"] = c.base + "/deleted" + string(c.kind) + "/" + o.Name
	m["deletedDate"] = o.deleted.Unix()
	m["scheduledPurgeDate"] = o.purge.Unix()
	return m
}
