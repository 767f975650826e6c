package keyvault

import (
	"encoding/base64"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mandate-sam/mandate/emulator/fault"
)

// operations is the API.
var operations = slices.Concat(
	shared(secrets, fault.BudgetSecrets, "set"), secretOperations,
	shared(keys, fault.BudgetKeys, "update"), keyOperations,
	certificateOperations,
)

// shared are the operations that secrets and keys have in common.
func shared(k kind, budget, update string) []operation {
	live, gone := string(k), "deleted"+string(k)
	return []operation{
		{"GET", live, k, "list", budget, (*Vault).list},
		{"GET", live + "/{n}/versions", k, "list", budget, (*Vault).listVersions},
		{"PATCH", live + "/{n}", k, update, budget, (*Vault).update},
		{"PATCH", live + "/{n}/{v}", k, update, budget, (*Vault).update},
		{"DELETE", live + "/{n}", k, "delete", budget, (*Vault).delete},
		{"POST", live + "/{n}/backup", k, "backup", budget, (*Vault).backup},
		{"POST", live + "/restore", k, "restore", budget, (*Vault).restore},
		{"GET", gone, k, "list", budget, (*Vault).listDeleted},
		{"GET", gone + "/{n}", k, "get", budget, (*Vault).getDeleted},
		{"DELETE", gone + "/{n}", k, "purge", budget, (*Vault).purge},
		{"POST", gone + "/{n}/recover", k, "recover", budget, (*Vault).recover},
	}
}

const pageSize = 25 // the default, and the largest

// page answers with the part of the sorted ids that the request asks for.
func (c *call) page(ids []string, item func(id string) map[string]any) (any, error) {
	size := pageSize
	if q := c.query.Get("maxresults"); q != "" {
		n, err := strconv.Atoi(q)
		if err != nil || n < 1 || n > pageSize {
			return nil, badParameter("maxresults must be a number from 1 to %d", pageSize)
		}
		size = n
	}
	after, err := base64.RawURLEncoding.DecodeString(c.query.Get("$skiptoken"))
	if err != nil {
		return nil, badParameter("The $skiptoken is not valid.")
	}
	from, found := slices.BinarySearch(ids, string(after))
	if found {
		from++
	}
	to := min(from+size, len(ids))
	items := []any{}
	for _, id := range ids[from:to] {
		items = append(items, item(id))
	}
	var next any
	if to < len(ids) {
		next = c.next(ids[to-1])
	}
	return map[string]any{"value": items, "nextLink": next}, nil
}

// next is the URL of the page after the id.
func (c *call) next(last string) string {
	q := url.Values{"api-version": {c.query.Get("api-version")}, "$skiptoken": {base64.RawURLEncoding.EncodeToString([]byte(last))}}
	if n := c.query.Get("maxresults"); n != "" {
		q.Set("maxresults", n)
	}
	return c.base + c.path + "?" + q.Encode()
}

// listed answers with the objects that match, by name.
func (v *Vault) listed(c *call, match func(*object) bool, item func(*object) map[string]any) (any, error) {
	s := v.shelves[c.kind]
	var ids []string
	for id, o := range s.objects {
		if match(o) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return c.page(ids, func(id string) map[string]any { return item(s.objects[id]) })
}

func (v *Vault) list(c *call) (any, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.listed(c, func(o *object) bool { return o.isLive() },
		func(o *object) map[string]any { return c.item(o, o.latest(), "") })
}

func (v *Vault) listDeleted(c *call) (any, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.listed(c, func(o *object) bool { return o.isDeleted() && v.now().Before(o.purge) },
		func(o *object) map[string]any { return c.addDeleted(c.item(o, o.latest(), ""), o) })
}

// listVersions lists them by id, which says nothing about their order.
func (v *Vault) listVersions(c *call) (any, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	o, err := v.live(c)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, ver := range o.Versions {
		ids = append(ids, ver.ID)
	}
	slices.Sort(ids)
	return c.page(ids, func(id string) map[string]any { return c.item(o, o.version(id), id) })
}

// update changes what is not the value: attributes, tags, a secret's content
// type and a key's operations.
func (v *Vault) update(c *call) (any, error) {
	var in struct {
		properties
		ContentType *string  `json:"contentType"`
		Ops         []string `json:"key_ops"`
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if err := in.check(); err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	o, ver, err := v.liveVersion(c)
	if err != nil {
		return nil, err
	}
	if c.kind == secrets && in.ContentType != nil {
		if err := checkContentType(in.ContentType); err != nil {
			return nil, err
		}
		ver.ContentType = in.ContentType
	}
	if c.kind == keys && in.Ops != nil {
		if ver.Ops, err = ver.Key.ops(in.Ops); err != nil {
			return nil, err
		}
	}
	in.apply(ver)
	ver.Updated = v.now().Unix()
	return c.bundle(o, ver), nil
}

func (v *Vault) delete(c *call) (any, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := v.now()
	if o := v.shelves[c.kind].find(c.identity(), now); o != nil && !o.deleted.IsZero() && !o.isDeleted() {
		return nil, v.beingDeleted(c.kind, c.name)
	}
	o, err := v.live(c)
	if err != nil {
		return nil, err
	}
	if o.Managed && !c.asCertificate {
		return nil, managed(c.kind, c.name)
	}
	o.deleted, o.purge, o.settled = now, now.AddDate(0, 0, retention), v.settling()
	return c.addDeleted(c.bundle(o, o.latest()), o), nil
}

func (v *Vault) getDeleted(c *call) (any, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	o, err := v.deletedObject(c)
	if err != nil {
		return nil, err
	}
	return c.addDeleted(c.bundle(o, o.latest()), o), nil
}

// recover brings a deleted object back, with all its versions.
func (v *Vault) recover(c *call) (any, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	o, err := v.gone(c)
	if err != nil {
		return nil, err
	}
	if o.Managed && !c.asCertificate {
		return nil, managed(c.kind, c.name)
	}
	o.deleted, o.purge, o.settled = time.Time{}, time.Time{}, v.settling()
	return c.bundle(o, o.latest()), nil
}

func (v *Vault) purge(c *call) (any, error) {
	if v.purgeProtected() {
		return nil, forbidden("", "Operation \"purge\" is not allowed on this %s, because purge protection is enabled on key vault '%s'.", c.kind.word(), v.cfg.Name)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	o, err := v.gone(c)
	if err != nil {
		return nil, err
	}
	if o.Managed && !c.asCertificate {
		return nil, managed(c.kind, c.name)
	}
	delete(v.shelves[c.kind].objects, c.identity())
	return nil, nil
}

// gone returns the deleted object; one that is on its way is in nobody's reach.
func (v *Vault) gone(c *call) (*object, error) {
	o := v.shelves[c.kind].find(c.identity(), v.now())
	if o != nil && !o.deleted.IsZero() && !o.isDeleted() {
		return nil, v.beingDeleted(c.kind, c.name)
	}
	return v.deletedObject(c)
}

func (v *Vault) backup(c *call) (any, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	o, err := v.live(c)
	if err != nil {
		return nil, err
	}
	if o.Managed {
		return nil, managed(c.kind, c.name)
	}
	if len(o.Versions) > maxBackup {
		return nil, badParameter("The %s has too many versions to be backed up. The maximum is %d.", c.kind.word(), maxBackup)
	}
	blob, err := v.cfg.Seal.close(c.kind, o)
	if err != nil {
		return nil, err
	}
	return map[string]any{"value": blob}, nil
}

// restore brings back all versions of a backup, if its name is free.
func (v *Vault) restore(c *call) (any, error) {
	var in struct {
		Value octets `json:"value"`
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	o := &object{}
	if err := v.cfg.Seal.open(c.kind, in.Value, o); err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	there, err := v.writable(c.kind, o.Name)
	if err != nil {
		return nil, err
	}
	if there != nil {
		return nil, conflict("", "There was a conflict restoring the %s '%s' because a %s of that name already exists.", c.kind.word(), strings.ToLower(o.Name), c.kind.word())
	}
	v.put(c.kind, o)
	return c.bundle(o, o.latest()), nil
}
