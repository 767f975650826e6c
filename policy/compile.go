package policy

import (
	"fmt"
	"slices"
	"time"

	"github.com/mandate-sam/mandate"
)

// compile checks every field of the rule. The errors wrap
// [mandate.ErrInvalid] and name the field.
func (r *rule) compile(clouds []mandate.Cloud) (compiled, error) {
	c := compiled{
		name: r.Name, reason: fmt.Sprintf("allowed by rule %q", r.Name),
		callers: make(map[mandate.CallerID]bool), partners: make(map[string]bool),
		purposes: make(map[string]bool), uses: make(map[mandate.Use]bool),
	}
	if !mandate.Name(r.Name) {
		return c, mandate.Invalid("name", "must be a name of letters, digits, '-', '_' or '.'")
	}
	for _, step := range []func() error{
		func() error { return fill(c.callers, "callers", r.Callers, mandate.Name) },
		func() error { return fill(c.partners, "partners", r.Partners, mandate.Name) },
		func() error { return fill(c.purposes, "purposes", r.Purposes, mandate.Name) },
		func() error { return c.compileUses(r.Uses) },
		func() error { return c.compileCustomers(r.Customers) },
		func() error { return c.compileAudiences(r.Audiences, clouds) },
		func() error { return c.compileScopes(r.Scopes) },
		func() error { return c.compileEnd(r.Until) },
		func() error { return c.compileLife(r.MaxTokenLife) },
	} {
		if err := step(); err != nil {
			return c, err
		}
	}
	return c, nil
}

// fill puts the entries of a required list into a set.
func fill[T ~string](set map[T]bool, field string, list []string, ok func(string) bool) error {
	if err := counted(field, list); err != nil {
		return err
	}
	for _, s := range list {
		if !ok(s) {
			return mandate.Invalid(field, "%.64q is not a name; there are no wildcards here", s)
		}
		set[T(s)] = true
	}
	return nil
}

func counted(field string, list []string) error {
	if len(list) == 0 {
		return mandate.Invalid(field, "is required: a rule allows only what it names")
	}
	if len(list) > maxEntries {
		return mandate.Invalid(field, "has more than %d entries", maxEntries)
	}
	return nil
}

func (c *compiled) compileUses(list []string) error {
	if len(list) == 0 {
		list = []string{string(mandate.UseToken), string(mandate.UseCall)}
	}
	return fill(c.uses, "uses", list, func(s string) bool {
		return s == string(mandate.UseToken) || s == string(mandate.UseCall)
	})
}

func (c *compiled) compileCustomers(list []string) error {
	if err := counted("customers", list); err != nil {
		return err
	}
	c.customers = make(map[mandate.TenantID]bool)
	if slices.Contains(list, all) {
		c.allCustomers = true
		if len(list) > 1 {
			return mandate.Invalid("customers", "is either `all` or a list of tenant ids")
		}
		return nil
	}
	for _, s := range list {
		t, err := mandate.ParseTenantID(s)
		if err != nil {
			return mandate.Invalid("customers", "%.64q is neither `all` nor a tenant id", s)
		}
		c.customers[t] = true
	}
	return nil
}

// compileAudiences resolves each audience in every cloud that has it.
func (c *compiled) compileAudiences(list []string, clouds []mandate.Cloud) error {
	if err := counted("audiences", list); err != nil {
		return err
	}
	c.audiences = make(map[cloudAudience]bool)
	for _, s := range list {
		var err error
		known := false
		for _, cl := range clouds {
			var a mandate.Audience
			if a, err = cl.Resolve(s); err == nil {
				c.audiences[cloudAudience{cl.Name, a}] = true
				known = true
			}
		}
		if !known {
			return mandate.Invalid("audiences", "%.80q is not an audience of any configured cloud", s)
		}
	}
	return nil
}

func (c *compiled) compileScopes(list []string) error {
	if err := counted("scopes", list); err != nil {
		return err
	}
	if slices.Contains(list, consented) {
		c.consented = true
		if len(list) > 1 {
			return mandate.Invalid("scopes", "is either `consented` or a list of scope names")
		}
		return nil
	}
	for _, s := range list {
		if !mandate.Name(s) {
			return mandate.Invalid("scopes", "%.64q is not a scope's name, such as User.Read", s)
		}
	}
	c.scopes = mandate.NormalScopes(list)
	return nil
}

// compileEnd reads the end of the rule's right, which every rule must have. A
// date is the end of that day in UTC.
func (c *compiled) compileEnd(s string) error {
	if s == "" {
		return mandate.Invalid("until", "is required: every right has an end")
	}
	if day, err := time.Parse(time.DateOnly, s); err == nil {
		c.until = day.AddDate(0, 0, 1)
		return nil
	}
	var err error
	if c.until, err = time.Parse(time.RFC3339, s); err != nil {
		return mandate.Invalid("until", "%.40q is neither a date (2027-06-30) nor a time (2027-06-30T12:00:00Z)", s)
	}
	return nil
}

func (c *compiled) compileLife(s string) error {
	if s == "" {
		return nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 5*time.Minute || d > 28*time.Hour {
		return mandate.Invalid("max_token_life", "%.40q is not a duration from 5m to 28h", s)
	}
	c.maxTokenLife = d
	return nil
}
