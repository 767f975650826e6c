package policy

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/spelling"
)

// A rule is one policy of Cedar's with its annotations.
type rule struct {
	order  int // in the files
	file   string
	line   int
	name   string
	permit bool
	cedar  *cedar.Policy
	ast    *ast.Policy
	shadow bool // is looked at, and decides nothing
	uses   uses
	wants  attribute // of the context

	// Who it can speak of, for the index: nil is anybody.
	callers, partners []string

	allCustomers bool
	consented    bool
	scopes       []mandate.Scope
	ticket       bool
	until        time.Time // zero: a rule that forbids for ever
	maxTokenLife time.Duration
	approval     time.Duration // how long a second person's yes lasts; zero: none is needed

	reason string // for what it allows

	once  sync.Once // guards parts
	parts []part    // see [rule.split]
}

// uses is a set of actions.
type uses uint8

const (
	useToken uses = 1 << iota
	useCall
	useAdminister
)

func useOf(u mandate.Use) uses {
	switch u {
	case mandate.UseToken:
		return useToken
	case mandate.UseCall:
		return useCall
	}
	return 0
}

// annotations are what may be written above a rule, each with how it is read.
var annotations = map[string]func(*rule, string) error{
	"id":             (*rule).setName,
	"until":          (*rule).setUntil,
	"scopes":         (*rule).setScopes,
	"customers":      word("customers", "all", func(r *rule) { r.allCustomers = true }),
	"ticket":         word("ticket", "required", func(r *rule) { r.ticket = true }),
	"shadow":         word("shadow", "true", func(r *rule) { r.shadow = true }),
	"max_token_life": (*rule).setLife,
	"approval":       (*rule).setApproval,
	"description":    func(*rule, string) error { return nil },
}

// ofPermits are the annotations that mean nothing above a rule that forbids.
var ofPermits = []string{"scopes", "customers", "ticket", "max_token_life", "approval"}

// annotate reads the annotations of a rule, and reports what is missing.
func (r *rule) annotate() error {
	seen := map[string]bool{}
	for _, a := range r.ast.Annotations {
		key, value := string(a.Key), string(a.Value)
		set, ok := annotations[key]
		if !ok {
			return mandate.Invalid("@"+key, "is no annotation%s", suggestion(key))
		}
		if !r.permit && slices.Contains(ofPermits, key) {
			return mandate.Invalid("@"+key, "is for rules that permit")
		}
		if err := set(r, value); err != nil {
			return err
		}
		seen[key] = true
	}
	switch {
	case !seen["id"]:
		return mandate.Invalid("@id", "is required: decisions and records name the rule")
	case r.permit && !seen["until"]:
		return mandate.Invalid("@until", "is required: every right has an end")
	case r.permit && !seen["scopes"]:
		return mandate.Invalid("@scopes", `is required: "consented", or the names of the scopes that a token may carry`)
	}
	r.reason = fmt.Sprintf("allowed by rule %q", r.name)
	return nil
}

func suggestion(key string) string {
	var known []string
	for k := range annotations {
		known = append(known, k)
	}
	slices.Sort(known)
	if s := spelling.Suggest(key, known); s != "" {
		return fmt.Sprintf("; did you mean @%s?", s)
	}
	return "; there are @" + strings.Join(known, ", @")
}

// word reads an annotation that has one value only.
func word(key, want string, set func(*rule)) func(*rule, string) error {
	return func(r *rule, s string) error {
		if s != want {
			return mandate.Invalid("@"+key, "can only be %q", want)
		}
		set(r)
		return nil
	}
}

func (r *rule) setName(s string) error {
	if !mandate.Name(s) {
		return mandate.Invalid("@id", "%.64q is not a name of letters, digits, '-', '_', '.' or ':'", s)
	}
	r.name = s
	return nil
}

// setUntil reads the end of a right. A date is the end of that day in UTC.
func (r *rule) setUntil(s string) error {
	if day, err := time.Parse(time.DateOnly, s); err == nil {
		r.until = day.AddDate(0, 0, 1)
		return nil
	}
	var err error
	if r.until, err = time.Parse(time.RFC3339, s); err != nil {
		return mandate.Invalid("@until", "%.40q is neither a date (2027-06-30) nor a time (2027-06-30T12:00:00Z)", s)
	}
	return nil
}

func (r *rule) setScopes(s string) error {
	list := strings.Fields(s)
	if len(list) == 0 {
		return mandate.Invalid("@scopes", `is "consented" or the names of scopes`)
	}
	if slices.Contains(list, "consented") {
		if r.consented = true; len(list) > 1 {
			return mandate.Invalid("@scopes", `is either "consented" or names of scopes`)
		}
		return nil
	}
	for _, one := range list {
		if !mandate.Name(one) {
			return mandate.Invalid("@scopes", "%.64q is not a scope's name, such as User.Read; there are no wildcards here", one)
		}
	}
	r.scopes = mandate.NormalScopes(list)
	return nil
}

func (r *rule) setLife(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil || d < 5*time.Minute || d > 28*time.Hour {
		return mandate.Invalid("@max_token_life", "%.40q is not a duration from 5m to 28h", s)
	}
	r.maxTokenLife = d
	return nil
}

func (r *rule) setApproval(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil || d < time.Minute || d > mandate.MaxApproval {
		return mandate.Invalid("@approval", "%.40q is not how long a second person's yes lasts, from 1m to 24h", s)
	}
	r.approval = d
	return nil
}

func (r *rule) allowsAsked(asked []mandate.Scope) bool {
	return r.consented || !slices.ContainsFunc(asked, func(s mandate.Scope) bool { return !slices.Contains(r.scopes, s) })
}

// effect returns Cedar's word for what the rule does.
func (r *rule) effect() string {
	if r.permit {
		return "permit"
	}
	return "forbid"
}
