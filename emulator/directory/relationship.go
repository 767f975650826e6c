package directory

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Statuses of a [Relationship].
const (
	RelationshipCreated    = "created"         // being written by the partner
	RelationshipPending    = "approvalPending" // locked; the customer has to approve
	RelationshipActive     = "active"
	RelationshipTerminated = "terminated"
	RelationshipExpired    = "expired"
)

// A Relationship is a delegated admin relationship: roles that a partner has
// in a customer's tenant for a while. Only an active one gives anything.
type Relationship struct {
	ID, Name          string
	Partner, Customer string // tenant ids; no customer until one approves, if none was named
	Duration          string // ISO 8601, from activation
	AutoExtend        string // ISO 8601; "PT0S": it ends when its duration is over
	Status            string
	Roles             []string

	Created, Modified, Activated, End time.Time

	// Version counts the changes; the ETag is made of it.
	Version     int
	Assignments []Assignment
	Requests    []RelationshipRequest
}

// An Assignment gives a security group of the partner's some of the
// relationship's roles.
type Assignment struct {
	ID, Group         string
	Roles             []string
	Created, Modified time.Time
	Version           int
}

// A RelationshipRequest is something that was asked of a relationship, and
// was done.
type RelationshipRequest struct {
	ID, Action string
	Created    time.Time
}

// isoPeriod is a duration as ISO 8601 writes it.
var isoPeriod = regexp.MustCompile(`^P(?:(\d{1,3})Y)?(?:(\d{1,3})M)?(?:(\d{1,4})D)?(?:T(?:(\d{1,4})H)?(?:(\d{1,4})M)?(?:(\d{1,5})S)?)?$`)

// AddPeriod returns the moment that long after t, for a duration in the
// format of ISO 8601.
func AddPeriod(t time.Time, period string) (time.Time, bool) {
	m := isoPeriod.FindStringSubmatch(period)
	if m == nil || strings.HasSuffix(period, "P") || strings.HasSuffix(period, "T") {
		return t, false
	}
	n := func(i int) int { v, _ := strconv.Atoi(m[i]); return v } // digits, or empty for 0
	t = t.AddDate(n(1), n(2), n(3))
	return t.Add(time.Duration(n(4))*time.Hour + time.Duration(n(5))*time.Minute + time.Duration(n(6))*time.Second), true
}

// extends reports whether the relationship goes on when its duration is over.
func (r *Relationship) extends() bool {
	end, ok := AddPeriod(time.Time{}, r.AutoExtend)
	return ok && !end.IsZero()
}

// statusAt is the status, in which the end of the duration has been noticed.
func (r *Relationship) statusAt(now time.Time) string {
	if r.Status == RelationshipActive && !r.End.IsZero() && !now.Before(r.End) && !r.extends() {
		return RelationshipExpired
	}
	return r.Status
}

// Activate makes the relationship active for its duration.
func (r *Relationship) Activate(now time.Time) {
	r.Status, r.Activated = RelationshipActive, now
	r.End, _ = AddPeriod(now, r.Duration)
}

func (r *Relationship) clone() Relationship {
	c := *r
	c.Roles, c.Requests, c.Assignments = slices.Clone(r.Roles), slices.Clone(r.Requests), slices.Clone(r.Assignments)
	return c
}

// at is a copy of the relationship as it is now.
func (r *Relationship) at(now time.Time) Relationship {
	c := r.clone()
	c.Status = r.statusAt(now)
	return c
}

// relationshipEpoch is when relationships began that nobody created.
var relationshipEpoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// implied is the relationship behind [Directory.Delegate]. The caller holds
// d.mu.
func (d *Directory) implied(partner, customer string) Relationship {
	group := GroupID(partner, AdminAgents)
	roles := d.impliedRoles(partner, customer)
	id := RelationshipID(partner, customer)
	return Relationship{
		ID: id, Name: d.tenants[partner].Name + " for " + d.tenants[customer].Name, Partner: partner, Customer: customer,
		Duration: "P730D", AutoExtend: "P180D", Status: RelationshipActive, Roles: roles,
		Created: relationshipEpoch, Modified: relationshipEpoch, Activated: relationshipEpoch, End: relationshipEpoch.AddDate(0, 0, 730),
		Assignments: []Assignment{{ID: group, Group: group, Roles: roles, Created: relationshipEpoch, Modified: relationshipEpoch}},
		Requests:    []RelationshipRequest{{ID: GroupID(partner, id), Action: "lockForApproval", Created: relationshipEpoch}},
	}
}

// A RelationshipName says which relationship is meant. One that came with
// [Directory.Delegate] has no id in it, because making one takes time.
type RelationshipName struct{ ID, Partner, Customer string }

// Relationships returns the partner's relationships: those that came with
// [Directory.Delegate], then the others in order of creation. Only their names
// are returned, so that a page of a long list costs no more than the page;
// [Directory.Describe] has the rest.
func (d *Directory) Relationships(partner string) []RelationshipName {
	d.mu.RLock()
	defer d.mu.RUnlock()
	all := make([]RelationshipName, 0, len(d.customers[partner])+len(d.related[partner]))
	for _, c := range d.customers[partner] {
		if !d.explicit[[2]string{partner, c}] {
			all = append(all, RelationshipName{Partner: partner, Customer: c})
		}
	}
	for _, id := range d.related[partner] {
		all = append(all, RelationshipName{ID: id, Partner: partner})
	}
	return all
}

// Describe returns the relationship of that name.
func (d *Directory) Describe(n RelationshipName) Relationship {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if r, ok := d.relationships[n.ID]; ok {
		return r.at(d.now())
	}
	return d.implied(n.Partner, n.Customer)
}

// Relationship returns the relationship with that id if it concerns the
// tenant: as partner, as customer, or because any customer may approve it.
func (d *Directory) Relationship(tenant, id string) (Relationship, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	r, ok := d.relationship(tenant, strings.ToLower(id))
	if !ok {
		return Relationship{}, false
	}
	return r.at(d.now()), true
}

// relationship: the caller holds d.mu.
func (d *Directory) relationship(tenant, id string) (*Relationship, bool) {
	if r, ok := d.relationships[id]; ok {
		open := r.Customer == "" && r.Status == RelationshipPending
		return r, r.Partner == tenant || r.Customer == tenant || open
	}
	customer, own := strings.CutPrefix(id, relationshipHalf(tenant)+"-")
	for _, c := range d.customers[tenant] {
		if own && !d.explicit[[2]string{tenant, c}] && relationshipHalf(c) == customer {
			r := d.implied(tenant, c)
			return &r, true
		}
	}
	for _, p := range d.partners[tenant] {
		if !d.explicit[[2]string{p, tenant}] && RelationshipID(p, tenant) == id {
			r := d.implied(p, tenant)
			return &r, true
		}
	}
	return nil, false
}

// CreateRelationship adds a relationship, which is in nobody's way until it
// is active.
func (d *Directory) CreateRelationship(r Relationship) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := r.clone()
	d.relationships[r.ID] = &c
	d.related[r.Partner] = append(d.related[r.Partner], r.ID)
}

// ChangeRelationship lets f change the relationship with that id, if it
// concerns the tenant, and returns it as it then is. Nothing is changed if f
// returns an error. What the change means for delegated administration is in
// force when it returns. f must not use the directory.
func (d *Directory) ChangeRelationship(tenant, id string, f func(*Relationship) error) (r Relationship, found bool, err error) {
	now := d.now()
	d.mu.Lock()
	defer d.mu.Unlock()
	id = strings.ToLower(id)
	old, found := d.relationship(tenant, id)
	if !found {
		return Relationship{}, false, nil
	}
	r = old.at(now)
	if err := f(&r); err != nil {
		return Relationship{}, true, err
	}
	r.Version++
	r.Modified = now
	if _, stored := d.relationships[id]; !stored {
		d.explicit[[2]string{r.Partner, r.Customer}] = true
		d.related[r.Partner] = append(d.related[r.Partner], id)
	}
	kept := r.clone()
	d.relationships[id] = &kept
	d.settle(r.Partner, r.Customer)
	return r, true, nil
}

// DeleteRelationship forgets the relationship.
func (d *Directory) DeleteRelationship(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dropRelationship(id)
}

// dropRelationship: the caller holds d.mu.
func (d *Directory) dropRelationship(id string) {
	if r, ok := d.relationships[id]; ok {
		delete(d.relationships, id)
		d.related[r.Partner] = slices.DeleteFunc(slices.Clone(d.related[r.Partner]), func(o string) bool { return o == id })
	}
}

// settle makes the customer one of the partner's if a relationship says so,
// and not if none does. The caller holds d.mu.
func (d *Directory) settle(partner, customer string) {
	pair := [2]string{partner, customer}
	listed := slices.Contains(d.partners[customer], partner)
	if listed && !d.explicit[pair] {
		return // it rests on Delegate, too
	}
	active := d.anyActive(partner, customer)
	switch {
	case active && !listed:
		d.explicit[pair] = true
		d.link(partner, customer)
	case !active && listed:
		d.unlink(partner, customer)
	}
}

// anyActive: the caller holds d.mu.
func (d *Directory) anyActive(partner, customer string) bool {
	now := d.now()
	return slices.ContainsFunc(d.related[partner], func(id string) bool {
		r := d.relationships[id]
		return r.Customer == customer && r.statusAt(now) == RelationshipActive
	})
}

// delegated reports whether a partner that the customer is listed with
// administers it now: a relationship that came through Graph ends by itself.
// The caller holds d.mu.
func (d *Directory) delegated(partner, customer string) bool {
	return !d.explicit[[2]string{partner, customer}] || d.anyActive(partner, customer)
}

func (d *Directory) link(partner, customer string) {
	d.customers[partner] = append(d.customers[partner], customer)
	d.partners[customer] = append(d.partners[customer], partner)
}

func (d *Directory) unlink(partner, customer string) {
	is := func(id string) func(string) bool { return func(s string) bool { return s == id } }
	d.customers[partner] = slices.DeleteFunc(slices.Clone(d.customers[partner]), is(customer))
	d.partners[customer] = slices.DeleteFunc(slices.Clone(d.partners[customer]), is(partner))
}

// forget ends every relationship of the pair, which is no longer listed. The caller holds d.mu.
func (d *Directory) forget(partner, customer string) {
	delete(d.explicit, [2]string{partner, customer})
	for _, id := range d.related[partner] {
		if r := d.relationships[id]; r.Customer == customer && r.Status == RelationshipActive {
			r.Status = RelationshipTerminated
			r.Version++
		}
	}
}
