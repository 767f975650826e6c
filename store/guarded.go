package store

import "github.com/mandate-sam/mandate/internal/database"

// guarded is what is security state: only this program may change it, and
// every replica verifies all of it in every epoch. A table is either here or in
// unguarded.
var guarded = []database.Guarded{
	{Table: "partners", Key: []string{"name"}, Columns: []string{"cloud", "application", "partner", "display_name", "created"}},
	{Table: "callers", Key: []string{"id", "key_id"}, Columns: []string{"hash", "created", "expires"}},
	{Table: "caller_registry", Key: []string{"id"}, Columns: []string{"owner", "created", "binding"}},
	{Table: "caller_credentials", Key: []string{"caller", "id"}, Columns: []string{"kind", "detail", "created", "expires"}},
	{Table: "partner_users", Key: []string{"cloud", "partner", "object", "role"}, Columns: []string{"created", "created_by"}},
	{Table: "contacts", Key: []string{"partner", "address"}, Columns: []string{"added", "added_by"}},
	{Table: "policy_versions", Key: []string{"number"}, Columns: []string{"version", "files", "applied", "applied_by"}},
	{Table: "revocations", Key: []string{"id"}, Columns: []string{"cloud", "application", "partner", "customer", "caller", "audience", "reason", "since", "revoked_by"}},
	{Table: "operator_sessions", Key: []string{"hash"}, Columns: []string{"issuer", "tenant", "object", "user_name", "member_of", "signed_in", "created", "expires"}},
	{Table: "approvals", Key: []string{"id"}, Columns: []string{"digest", "caller", "asked", "state", "wanted", "expires", "lasts", "requester", "decided", "decided_by", "decider"}},
	{Table: "customer_floors", Key: []string{"cloud", "application", "partner"}, Columns: []string{"version"}},
	{Table: "lockdown", Key: []string{"one"}, Columns: []string{"reason", "since", "set_by"}},
}

// unguarded are the tables that are not, with the reason.
var unguarded = map[string]string{
	"invitations":       "an invitation lets nobody have a token: whoever uses it proves who they are, and consents; whoever can take the mark of a compromised account from it has the consent of before stand in for a day",
	"sign_ins":          "the same",
	"restored":          "what is marked is suspended, and that is guarded",
	"customers":         "too many to be read in every epoch: the list of each partner has a MAC in customer_lists, which is verified when it is read",
	"customer_lists":    "the same; that no older list is put back is in customer_floors. When it is refreshed, and why that failed, is nobody's secret and decides nothing",
	"caller_assertions": "a row can only refuse; whoever deletes one lets an assertion count twice in its five minutes, for somebody who has it from elsewhere, and that caller's rights are guarded",
	"operator_signins":  "a row can only refuse; whoever deletes one must have the ID token that it was in, within ten minutes, and the operator's roles are in the configuration",
	"partner_sessions":  "whoever can insert one sees what is in the same database, and can withdraw a grant, as whoever can destroy its row can; their roles, which are guarded, are asked for again each time",
}
