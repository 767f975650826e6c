package portal

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
)

// apiNames are the names that people know the APIs by.
var apiNames = map[string]string{
	mandate.PartnerCenter: "Microsoft Partner Center",
	mandate.Graph:         "Microsoft Graph",
	mandate.ARM:           "Azure Resource Manager",
}

// meanings says in plain words what a scope lets an application do. A scope
// that is not here must be explained in the configuration.
var meanings = map[string]string{
	"partnercenter/user_impersonation":               "Work in Partner Center with your rights: see and manage your customers, their subscriptions, orders and users.",
	"arm/user_impersonation":                         "Manage Azure resources that your account can reach, in your tenant and in your customers’.",
	"graph/User.Read":                                "See who you are: your name and your profile.",
	"graph/User.Read.All":                            "See the profiles of all users.",
	"graph/User.ReadWrite.All":                       "See and change the profiles of all users.",
	"graph/Directory.Read.All":                       "See users, groups, roles and other things in the directory.",
	"graph/Directory.ReadWrite.All":                  "See and change users, groups and other things in the directory.",
	"graph/Directory.AccessAsUser.All":               "See and change in the directory whatever your account can.",
	"graph/Group.Read.All":                           "See all groups and what is in them.",
	"graph/GroupMember.Read.All":                     "See who is in which group.",
	"graph/Organization.Read.All":                    "See the details of your organisation.",
	"graph/DelegatedAdminRelationship.Read.All":      "See your granular delegated admin relationships (GDAP) with customers.",
	"graph/DelegatedAdminRelationship.ReadWrite.All": "See and change your granular delegated admin relationships (GDAP) with customers.",
}

// explain gives every permission its meaning, and reports a permission that
// has none and an audience without a permission.
func (a *Application) explain() error {
	explained := make([]Permission, len(a.Permissions))
	has := make(map[mandate.Audience]bool)
	for i, perm := range a.Permissions {
		audience, err := a.Cloud.Resolve(perm.API)
		if err != nil {
			return fmt.Errorf("permission %s: %w", perm.Scope, err)
		}
		if perm.Meaning == "" {
			perm.Meaning = meanings[a.Cloud.Alias(audience)+"/"+perm.Scope]
		}
		if perm.Scope == "" || perm.Meaning == "" {
			return mandate.Invalid("permissions", "say in plain words what %q on %s means", perm.Scope, perm.API)
		}
		has[audience] = true
		perm.API = a.apiName(audience)
		explained[i] = perm
	}
	for _, audience := range a.Audiences {
		if !has[audience] {
			return mandate.Invalid("permissions", "has none for %s", audience)
		}
	}
	a.Permissions = explained
	return nil
}

// apiName returns what people call an API.
func (a *Application) apiName(audience mandate.Audience) string {
	alias := a.Cloud.Alias(audience)
	if name, ok := apiNames[alias]; ok {
		return name
	}
	return alias
}

// An apiGroup is the permissions on one API.
type apiGroup struct {
	API         string
	Permissions []Permission
}

// groups returns the permissions by API, in the order of the configuration.
func (a *Application) groups() []apiGroup {
	var out []apiGroup
	at := make(map[string]int)
	for _, perm := range a.Permissions {
		i, ok := at[perm.API]
		if !ok {
			i, at[perm.API] = len(out), len(out)
			out = append(out, apiGroup{API: perm.API})
		}
		out[i].Permissions = append(out[i].Permissions, perm)
	}
	return out
}

// authorityHost is the host that the address bar must show while signing in.
func (a *Application) authorityHost() string {
	return strings.TrimPrefix(a.Cloud.Authority, "https://")
}

// when writes a time for people all over the world, to the minute.
func when(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04 UTC") }

// lasting writes a term in days, or in hours if it is not whole days.
func lasting(d time.Duration) string {
	hours := int(d.Round(time.Hour) / time.Hour)
	switch {
	case hours%24 == 0 && hours == 24:
		return "1 day"
	case hours%24 == 0:
		return fmt.Sprintf("%d days", hours/24)
	case hours == 1:
		return "1 hour"
	default:
		return fmt.Sprintf("%d hours", hours)
	}
}

// ownCaller begins the names under which the server itself uses a grant.
const ownCaller = "mandate:"

// callerName says who used a grant. Operators are named in the record, not to
// partners.
func (a *Application) callerName(caller string) string {
	switch {
	case strings.HasPrefix(caller, ownCaller):
		return "this site itself"
	case strings.HasPrefix(caller, "uid:"), strings.HasPrefix(caller, "oid:"):
		return "an operator at " + a.Publisher
	}
	return caller
}

// ownPurposes are what the server itself uses a grant for.
var ownPurposes = map[string]string{
	"customers":  "to learn who your customers are",
	"keep-alive": "to keep the consent from lapsing",
	"roles":      "to see who of you may open these pages",
}

func (a *Application) purposeName(e *Event) string {
	if own := ownPurposes[e.Purpose]; own != "" && strings.HasPrefix(e.Caller, ownCaller) {
		return own
	}
	return e.Purpose
}

// plainDetail turns what a record says of a change into words that the other pages
// use: who reads them has never heard of a grant. What is in no pair stays.
var plainDetail = strings.NewReplacer(
	"somebody of the partner", "somebody of your organisation",
	"the restored grant", "the restored consent",
	"the grant", "the consent",
	"the candidate", "the new consent",
	"withdrawn: local done", "withdrawn. The key that we kept: destroyed",
	"withdrawn: local ", "withdrawn. The key that we kept: ",
	", upstream ", "; at Microsoft: ",
	", tokens ", "; to take back passes that were handed out: ",
	" alive), copies ", " still good); to destroy copies out of our reach: ",
	"not permitted", "not possible",
	"not asked", "not asked for",
	"; revoked at Entra", "; Microsoft refuses the key, so it is revoked",
)

// methods are what people call the ways of signing in that tokens name.
var methods = map[string]string{
	"pwd": "password", "mfa": "a second factor", "otp": "a one-time code", "fido": "a security key",
	"rsa": "a certificate or the Authenticator", "wia": "Windows", "hwk": "a key of the device",
}

// methodNames says how somebody signed in.
func methodNames(amr []string) string {
	out := make([]string, len(amr))
	for i, m := range amr {
		out[i] = cmp.Or(methods[m], m)
	}
	return strings.Join(out, " and ")
}
