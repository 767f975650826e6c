package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/yamlfile"
)

// An oldFile is a list of rules in YAML, as they were written before Cedar.
type oldFile struct {
	Rules []oldRule `yaml:"rules"`
}

type oldRule struct {
	Name         string   `yaml:"name"`
	Callers      []string `yaml:"callers"`
	Partners     []string `yaml:"partners"`
	Customers    words    `yaml:"customers"` // tenant ids, or "all"
	Audiences    []string `yaml:"audiences"` // aliases or resource URIs
	Scopes       words    `yaml:"scopes"`    // scope names, or "consented"
	Purposes     []string `yaml:"purposes"`
	Uses         []string `yaml:"uses"`
	Until        string   `yaml:"until"`
	MaxTokenLife string   `yaml:"max_token_life"`
}

// words is a list in YAML that may be written as a single word.
type words []string

// UnmarshalYAML accepts a scalar for a list of one.
func (w *words) UnmarshalYAML(unmarshal func(any) error) error {
	var one string
	if err := unmarshal(&one); err == nil {
		*w = words{one}
		return nil
	}
	var many []string
	if err := unmarshal(&many); err != nil {
		return err
	}
	*w = many
	return nil
}

// Convert writes rules in YAML as a policy that decides the same: its Cedar
// file, and the groups that it needs where a rule has several callers or
// partners. What comes out has been compiled.
func Convert(name string, data []byte, clouds []mandate.Cloud) (Source, error) {
	var f oldFile
	if err := yamlfile.Decode(name, data, &f); err != nil {
		return nil, err
	}
	c := converter{clouds: clouds}
	for i := range f.Rules {
		if err := c.rule(&f.Rules[i]); err != nil {
			return nil, fmt.Errorf("%s: rule %d (%.64q): %w", name, i+1, f.Rules[i].Name, err)
		}
	}
	out := Source{{"policy.cedar", c.cedar.String()}}
	if c.callers != "" || c.partners != "" {
		out = append(out, File{GroupsFile, c.groups()})
	}
	_, err := Compile(out, clouds)
	return out, err
}

type converter struct {
	clouds            []mandate.Cloud
	cedar             strings.Builder
	callers, partners string // groups
}

func (c *converter) groups() string {
	var b strings.Builder
	for _, g := range []struct{ kind, text string }{{"callers", c.callers}, {"partners", c.partners}} {
		if g.text != "" {
			fmt.Fprintf(&b, "%s:\n%s", g.kind, g.text)
		}
	}
	return b.String()
}

func (c *converter) rule(r *oldRule) error {
	for _, l := range []struct {
		field string
		list  []string
	}{
		{"callers", r.Callers}, {"partners", r.Partners}, {"customers", r.Customers}, {"audiences", r.Audiences}, {"scopes", r.Scopes}, {"purposes", r.Purposes},
	} {
		if len(l.list) == 0 {
			return mandate.Invalid(l.field, "is required")
		}
	}
	if !mandate.Name(r.Name) {
		return mandate.Invalid("name", "is not a name")
	}
	if c.cedar.Len() > 0 {
		c.cedar.WriteByte('\n')
	}
	var terms []string
	c.annotations(r)
	c.head(r)
	for _, add := range []func(*oldRule) (string, error){c.customers, c.audiences, c.purposes} {
		term, err := add(r)
		if err != nil {
			return err
		}
		if term != "" {
			terms = append(terms, term)
		}
	}
	fmt.Fprintf(&c.cedar, "when {\n  %s\n};\n", strings.Join(terms, " &&\n  "))
	return nil
}

func (c *converter) annotations(r *oldRule) {
	fmt.Fprintf(&c.cedar, "@id(%q)\n@until(%q)\n@scopes(%q)\n", r.Name, r.Until, strings.Join(r.Scopes, " "))
	if slices.Contains(r.Customers, "all") {
		c.cedar.WriteString("@customers(\"all\")\n")
	}
	if r.MaxTokenLife != "" {
		fmt.Fprintf(&c.cedar, "@max_token_life(%q)\n", r.MaxTokenLife)
	}
}

func (c *converter) head(r *oldRule) {
	principal := "principal == " + entity("Caller", r.Callers[0])
	if len(r.Callers) > 1 {
		principal = "principal in " + entity("CallerGroup", r.Name)
		c.callers += fmt.Sprintf("  %s: %s\n", quoteYAML(r.Name), listYAML(r.Callers))
	}
	resource := "resource in " + entity("Partner", r.Partners[0])
	if len(r.Partners) > 1 {
		resource = "resource in " + entity("PartnerGroup", r.Name)
		c.partners += fmt.Sprintf("  %s: %s\n", quoteYAML(r.Name), listYAML(r.Partners))
	}
	action := "action"
	if len(r.Uses) == 1 {
		action = "action == " + entity("Action", r.Uses[0])
	}
	fmt.Fprintf(&c.cedar, "permit (\n  %s,\n  %s,\n  %s\n)\n", principal, action, resource)
}

func (c *converter) customers(r *oldRule) (string, error) {
	if slices.Contains(r.Customers, "all") {
		return "", nil
	}
	var ids []string
	for _, s := range r.Customers {
		t, err := mandate.ParseTenantID(s)
		if err != nil {
			return "", mandate.Invalid("customers", "%.64q is neither `all` nor a tenant id", s)
		}
		ids = append(ids, t.String())
	}
	return "resource in " + set("Customer", ids), nil
}

func (c *converter) audiences(r *oldRule) (string, error) {
	var names []string
	for _, s := range r.Audiences {
		known := false
		for i := range c.clouds {
			if a, err := c.clouds[i].Resolve(s); err == nil {
				if name := c.clouds[i].Alias(a); !slices.Contains(names, name) {
					names = append(names, name)
				}
				known = true
			}
		}
		if !known {
			return "", mandate.Invalid("audiences", "%.80q is not an audience of any configured cloud", s)
		}
	}
	return "context.audience in " + set("Audience", names), nil
}

func (c *converter) purposes(r *oldRule) (string, error) {
	return "context.purpose in " + set("Purpose", r.Purposes), nil
}

// set writes one entity, or several in brackets.
func set(typ string, ids []string) string {
	all := make([]string, len(ids))
	for i, id := range ids {
		all[i] = entity(typ, id)
	}
	if len(all) == 1 {
		return all[0]
	}
	return "[" + strings.Join(all, ", ") + "]"
}

func entity(typ, id string) string { return fmt.Sprintf("%s::%q", typ, id) }

func quoteYAML(s string) string { return fmt.Sprintf("%q", s) }

func listYAML(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = quoteYAML(s)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}
