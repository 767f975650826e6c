package graph

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mandate-sam/mandate/emulator/directory"
)

const relationshipsPath = "tenantRelationships/delegatedAdminRelationships"

// The errors of delegated admin relationships that no other object has.
var (
	errNoMatch = &apiError{status: 428, code: "PreconditionRequired", text: "The If-Match header is required for this operation."}
	errETag    = &apiError{status: 412, code: "PreconditionFailed", text: "The ETag in the If-Match header does not match the current state of the resource."}
	errStatus  = &apiError{status: 409, code: "Conflict", text: "The operation is not allowed in the current status of the delegated admin relationship."}
	errGroup   = &apiError{status: 409, code: "Conflict", text: "The security group has an access assignment in the delegated admin relationship already."}
)

func etagOf(id string, version int) string { return `W/"` + id[:8] + "-" + strconv.Itoa(version) + `"` }

// matches holds the request's If-Match, without which nothing is changed,
// against the ETag.
func matches(c call, etag string) error {
	switch c.Header.Get("If-Match") {
	case "":
		return errNoMatch
	case "*", etag, strings.TrimPrefix(etag, "W/"):
		return nil
	}
	return errETag
}

// relationshipObject is a delegated admin relationship.
func (s *Server) relationshipObject(r directory.Relationship) map[string]any {
	var customer any
	if t, found := s.cfg.Directory.Tenant(r.Customer); found {
		customer = map[string]any{"tenantId": t.ID, "displayName": t.Name}
	}
	return map[string]any{
		"@odata.etag": etagOf(r.ID, r.Version), "id": r.ID, "displayName": r.Name, "duration": r.Duration, "autoExtendDuration": r.AutoExtend,
		"customer": customer, "accessDetails": accessDetails(r.Roles), "status": r.Status,
		"createdDateTime": stamp(r.Created), "lastModifiedDateTime": stamp(r.Modified),
		"activatedDateTime": stampOrNull(r.Activated), "endDateTime": stampOrNull(r.End),
	}
}

func stampOrNull(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return stamp(t)
}

func accessDetails(roles []string) map[string]any {
	list := []any{}
	for _, r := range roles {
		list = append(list, map[string]any{"roleDefinitionId": r})
	}
	return map[string]any{"unifiedRoles": list}
}

// accessBody is a list of roles as clients send it.
type accessBody struct {
	UnifiedRoles []struct {
		ID string `json:"roleDefinitionId"`
	} `json:"unifiedRoles"`
}

// roles are those of the list, in lower case and once each.
func (b *accessBody) roles() ([]string, error) {
	var roles []string
	for _, r := range b.UnifiedRoles {
		if id := strings.ToLower(r.ID); !slices.Contains(roles, id) {
			roles = append(roles, id)
		}
	}
	if len(roles) == 0 || slices.Contains(roles, "") {
		return nil, invalid("Invalid value specified for property 'unifiedRoles' of resource 'DelegatedAdminAccessDetails'.")
	}
	return roles, nil
}

// relationshipBody is a relationship as clients send it. What is nil is left
// as it is.
type relationshipBody struct {
	DisplayName *string `json:"displayName"`
	Duration    *string `json:"duration"`
	AutoExtend  *string `json:"autoExtendDuration"`
	Customer    *struct {
		TenantID string `json:"tenantId"`
	} `json:"customer"`
	Access *accessBody `json:"accessDetails"`
}

func badProperty(name string) error {
	return invalid("Invalid value specified for property '" + name + "' of resource 'DelegatedAdminRelationship'.")
}

// longest is the longest duration that a relationship can have, in days.
const longest = 730

// apply changes r as the body says.
func (b relationshipBody) apply(r *directory.Relationship) error {
	if b.DisplayName != nil {
		if *b.DisplayName == "" || len(*b.DisplayName) > 50 {
			return badProperty("displayName")
		}
		r.Name = *b.DisplayName
	}
	if b.Duration != nil {
		var zero time.Time
		end, good := directory.AddPeriod(zero, *b.Duration)
		if days := int(end.Sub(zero) / (24 * time.Hour)); !good || days < 1 || days > longest {
			return badProperty("duration")
		}
		r.Duration = *b.Duration
	}
	if b.AutoExtend != nil {
		if !slices.Contains([]string{"P0D", "PT0S", "P180D"}, *b.AutoExtend) {
			return badProperty("autoExtendDuration")
		}
		r.AutoExtend = *b.AutoExtend
	}
	if b.Customer != nil {
		r.Customer = strings.ToLower(b.Customer.TenantID)
	}
	if b.Access != nil {
		roles, err := b.Access.roles()
		if err != nil {
			return err
		}
		r.Roles = roles
	}
	return nil
}

// partner refuses those who may not change the partner's relationships.
func partner(c call) error {
	u := c.token.Holder
	if c.tenant.Kind != directory.KindPartner || !c.token.AppOnly() && !u.In(directory.AdminAgents) && !slices.Contains(u.Roles, directory.RoleGlobalAdmin) {
		return errScope
	}
	return nil
}

func (s *Server) relationships(c call) (reply, error) {
	show := func(n directory.RelationshipName) map[string]any {
		return s.relationshipObject(s.cfg.Directory.Describe(n))
	}
	return ok(page(c, relationshipsPath, s.cfg.Directory.Relationships(c.tenant.ID), show))
}

// with is the relationship in the path.
func (s *Server) with(c call) (directory.Relationship, error) {
	r, found := s.cfg.Directory.Relationship(c.tenant.ID, c.PathValue("id"))
	if !found {
		return r, errNotFound
	}
	return r, nil
}

func (s *Server) relationship(c call) (reply, error) {
	r, err := s.with(c)
	if err != nil {
		return reply{}, err
	}
	return one(c, relationshipsPath, s.relationshipObject(r))
}

// createRelationship begins one. It means nothing until it was locked and the
// customer has approved it.
func (s *Server) createRelationship(c call) (reply, error) {
	var in relationshipBody
	if err := c.read(&in); err != nil {
		return reply{}, err
	}
	if err := partner(c); err != nil {
		return reply{}, err
	}
	if in.DisplayName == nil || in.Duration == nil || in.Access == nil {
		return reply{}, invalid("A value is required for properties 'displayName', 'duration' and 'accessDetails' of resource 'DelegatedAdminRelationship'.")
	}
	now := s.cfg.Dials.Now()
	r := directory.Relationship{
		ID: s.cfg.Chance.GUID() + "-" + s.cfg.Chance.GUID(), Partner: c.tenant.ID, AutoExtend: "PT0S",
		Status: directory.RelationshipCreated, Created: now, Modified: now,
	}
	if err := in.apply(&r); err != nil {
		return reply{}, err
	}
	if err := s.checkCustomer(r); err != nil {
		return reply{}, err
	}
	s.cfg.Directory.CreateRelationship(r)
	return created(c, relationshipsPath, r.ID, s.relationshipObject(r)), nil
}

func (s *Server) checkCustomer(r directory.Relationship) error {
	if t, found := s.cfg.Directory.Tenant(r.Customer); r.Customer != "" && (!found || t.ID != r.Customer || t.ID == r.Partner) {
		return badProperty("customer")
	}
	return nil
}

// created is the answer about a new object, which says where it is.
func created(c call, kind, id string, body map[string]any) reply {
	body["@odata.context"] = context + kind + "/$entity"
	return reply{status: http.StatusCreated, body: body, location: "https://" + c.Host + "/v1.0/" + kind + "/" + id}
}

// change lets f change the relationship in the path, for its partner.
func (s *Server) change(c call, f func(*directory.Relationship) error) (directory.Relationship, error) {
	if err := partner(c); err != nil {
		return directory.Relationship{}, err
	}
	return s.changeAs(c, func(r *directory.Relationship) error {
		if r.Partner != c.tenant.ID {
			return errScope
		}
		return f(r)
	})
}

// changeAs lets f change the relationship in the path, for either side.
func (s *Server) changeAs(c call, f func(*directory.Relationship) error) (directory.Relationship, error) {
	r, found, err := s.cfg.Directory.ChangeRelationship(c.tenant.ID, c.PathValue("id"), f)
	if err == nil && !found {
		err = errNotFound
	}
	return r, err
}

// patchRelationship changes what was not locked yet; whether it extends itself
// can be changed while it is active, too.
func (s *Server) patchRelationship(c call) (reply, error) {
	var in relationshipBody
	if err := c.read(&in); err != nil {
		return reply{}, err
	}
	if in.Customer != nil {
		if err := s.checkCustomer(directory.Relationship{Partner: c.tenant.ID, Customer: strings.ToLower(in.Customer.TenantID)}); err != nil {
			return reply{}, err
		}
	}
	r, err := s.change(c, func(r *directory.Relationship) error {
		if err := matches(c, etagOf(r.ID, r.Version)); err != nil {
			return err
		}
		extension := relationshipBody{AutoExtend: in.AutoExtend}
		if r.Status != directory.RelationshipCreated && (r.Status != directory.RelationshipActive || in != extension) {
			return errStatus
		}
		return in.apply(r)
	})
	if err != nil {
		return reply{}, err
	}
	return one(c, relationshipsPath, s.relationshipObject(r))
}

func (s *Server) deleteRelationship(c call) (reply, error) {
	r, err := s.with(c)
	if err != nil {
		return reply{}, err
	}
	if err := partner(c); err != nil || r.Partner != c.tenant.ID {
		return reply{}, errScope
	}
	if err := matches(c, etagOf(r.ID, r.Version)); err != nil {
		return reply{}, err
	}
	if r.Status != directory.RelationshipCreated {
		return reply{}, errStatus
	}
	s.cfg.Directory.DeleteRelationship(r.ID)
	return done, nil
}

func requestObject(q directory.RelationshipRequest) map[string]any {
	return map[string]any{
		"id": q.ID, "action": q.Action, "status": "succeeded", "createdDateTime": stamp(q.Created), "lastModifiedDateTime": stamp(q.Created),
	}
}

func requestsOf(r directory.Relationship) string {
	return relationshipsPath + "('" + r.ID + "')/requests"
}

func (s *Server) requests(c call) (reply, error) {
	r, err := s.with(c)
	if err != nil {
		return reply{}, err
	}
	return ok(page(c, requestsOf(r), r.Requests, requestObject))
}

func (s *Server) request(c call) (reply, error) {
	r, err := s.with(c)
	if err != nil {
		return reply{}, err
	}
	for _, q := range r.Requests {
		if strings.EqualFold(q.ID, c.PathValue("request")) {
			return one(c, requestsOf(r), requestObject(q))
		}
	}
	return reply{}, errNotFound
}

// createRequest moves a relationship on: its partner locks it for approval
// and terminates it, an administrator of the customer approves it. Where the
// customer would use the admin centre there is only this request here. It is
// done when it is answered, though the answer does not say so yet.
func (s *Server) createRequest(c call) (reply, error) {
	var in struct {
		Action string `json:"action"`
	}
	if err := c.read(&in); err != nil {
		return reply{}, err
	}
	now := s.cfg.Dials.Now()
	q := directory.RelationshipRequest{ID: s.cfg.Chance.GUID(), Action: in.Action, Created: now}
	act := func(r *directory.Relationship) error {
		r.Requests = append(r.Requests, q)
		return s.act(c, r, in.Action, now)
	}
	change := s.change
	if in.Action == "approve" || in.Action == "reject" {
		change = s.changeAs
	}
	r, err := change(c, act)
	if err != nil {
		return reply{}, err
	}
	body := requestObject(q)
	body["status"] = "created"
	return created(c, relationshipsPath+"/"+r.ID+"/requests", q.ID, body), nil
}

// act does what the request asks for. It is called with the directory's lock
// held.
func (s *Server) act(c call, r *directory.Relationship, action string, now time.Time) error {
	needs := map[string]string{
		"lockForApproval": directory.RelationshipCreated, "approve": directory.RelationshipPending,
		"reject": directory.RelationshipPending, "terminate": directory.RelationshipActive,
	}
	status, known := needs[action]
	switch {
	case !known:
		return invalid("Invalid value specified for property 'action' of resource 'DelegatedAdminRelationshipRequest'.")
	case r.Status != status:
		return errStatus
	}
	switch action {
	case "lockForApproval":
		r.Status = directory.RelationshipPending
	case "approve", "reject":
		return s.decide(c, r, action, now)
	case "terminate":
		r.Status, r.End = directory.RelationshipTerminated, now
	}
	return nil
}

// decide is the customer's word. A relationship that names no customer
// becomes that of the one who approves it.
func (s *Server) decide(c call, r *directory.Relationship, action string, now time.Time) error {
	u := c.token.Holder
	if r.Partner == c.tenant.ID || c.token.AppOnly() || u.Tenant != c.tenant.ID || !slices.Contains(u.Roles, directory.RoleGlobalAdmin) {
		return errScope
	}
	if r.Customer = c.tenant.ID; action == "reject" {
		r.Status = directory.RelationshipTerminated
		return nil
	}
	r.Activate(now)
	return nil
}

func customerObject(t directory.Tenant) map[string]any {
	return map[string]any{"id": t.ID, "tenantId": t.ID, "displayName": t.Name}
}

func (s *Server) customers(c call) (reply, error) {
	return ok(page(c, "tenantRelationships/delegatedAdminCustomers", s.cfg.Directory.Customers(c.tenant.ID), customerObject))
}

func (s *Server) customer(c call) (reply, error) {
	t, found := s.cfg.Directory.Tenant(c.PathValue("id"))
	if !found || !s.cfg.Directory.IsCustomer(c.tenant.ID, t.ID) {
		return reply{}, errNotFound
	}
	return one(c, "tenantRelationships/delegatedAdminCustomers", customerObject(t))
}
