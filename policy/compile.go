package policy

import (
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"

	"github.com/mandate-sam/mandate"
)

// A Set is a policy that was checked and can decide. It is never changed.
type Set struct {
	rules    []*rule // in the order of the files
	byName   map[string]*rule
	index    index
	groups   groups
	entities types.EntityMap
	clouds   map[string]cloud
	version  string
	memo     memo
}

// A cloud is how audiences are called in one.
type cloud struct {
	name      types.String
	audiences map[mandate.Audience]types.EntityUID
}

// Compile checks a policy and makes it ready to decide, for requests in the
// clouds given. The error joins everything that is wrong, each with its file
// and line.
func Compile(src Source, clouds []mandate.Cloud) (_ *Set, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("policy: cannot be read: %v", p)
		}
	}()
	src = slices.Clone(src)
	if err := src.check(); err != nil {
		return nil, err
	}
	s := &Set{version: src.Version(), byName: map[string]*rule{}, clouds: map[string]cloud{}}
	for i := range clouds {
		s.addCloud(&clouds[i])
	}
	var errs []error
	for _, f := range src {
		if f.Name == GroupsFile {
			errs = append(errs, s.groups.parse(f))
		}
	}
	s.entities = s.groups.entities()
	check, err := newChecker(s)
	if err != nil {
		return nil, err
	}
	for _, f := range src {
		if f.Name != GroupsFile {
			errs = append(errs, s.add(f, check))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	s.index = newIndex(s.rules)
	s.memo.seed = maphash.MakeSeed()
	return s, nil
}

func (s *Set) addCloud(c *mandate.Cloud) {
	known := cloud{types.String(c.Name), map[mandate.Audience]types.EntityUID{}}
	for _, e := range c.Audiences {
		known.audiences[e.Resource] = types.NewEntityUID(typeAudience, types.String(c.Alias(e.Resource)))
	}
	s.clouds[c.Name] = known
}

// add reads one file of rules.
func (s *Set) add(f File, check *checker) error {
	if line := tooDeep(f.Text); line > 0 {
		return fmt.Errorf("%s:%d: brackets are nested more than %d deep", f.Name, line, maxDepth)
	}
	list, err := cedar.NewPolicyListFromBytes(f.Name, []byte(f.Text))
	if err != nil {
		return parseError(f.Name, err)
	}
	var errs []error
	for _, p := range list {
		r := &rule{order: len(s.rules), file: f.Name, cedar: p, ast: (*ast.Policy)(p.AST()), permit: bool(p.Effect())}
		r.line = r.ast.Position.Line
		err := check.rule(r)
		if other := s.byName[r.name]; err == nil && other != nil {
			err = mandate.Invalid("@id", "%q is the rule at %s:%d already", r.name, other.file, other.line)
		}
		if err == nil && len(s.rules) >= maxRules {
			return fmt.Errorf("%s:%d: more than %d rules", f.Name, r.line, maxRules)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %s%w", f.Name, r.line, quoted(r.name), err))
			continue
		}
		s.rules = append(s.rules, r)
		s.byName[r.name] = r
	}
	return errors.Join(errs...)
}

func quoted(name string) string {
	if name == "" {
		return ""
	}
	return fmt.Sprintf("rule %q: ", name)
}

// parseError writes an error of Cedar's parser as file:line:column: what.
func parseError(file string, err error) error {
	text := strings.TrimPrefix(err.Error(), "parser error: ")
	if _, at, ok := strings.Cut(text, "parse error at "+file+":"); ok {
		if place, what, ok := strings.Cut(at, " "); ok {
			return fmt.Errorf("%s:%s: %s", file, strings.TrimSuffix(place, ":"), what)
		}
	}
	if _, at, ok := strings.Cut(text, "parse error at <input>:"); ok {
		if place, what, ok := strings.Cut(at, " "); ok {
			return fmt.Errorf("%s:%s: %s", file, strings.TrimSuffix(place, ":"), what)
		}
	}
	return fmt.Errorf("%s: %s", file, text)
}

// tooDeep returns the line on which brackets are nested deeper than any rule
// has them, or 0. The parser recurses, and must not be led to the end of its
// stack.
func tooDeep(text string) int {
	line, depth := 1, 0
	var inString, inComment, escaped bool
	for i := range len(text) {
		c := text[i]
		switch {
		case c == '\n':
			line++
			inComment = false
		case inComment:
		case escaped:
			escaped = false
		case inString:
			escaped, inString = c == '\\', c != '"'
		case c == '"':
			inString = true
		case c == '/' && i+1 < len(text) && text[i+1] == '/':
			inComment = true
		case strings.IndexByte("([{", c) >= 0:
			if depth++; depth > maxDepth {
				return line
			}
		case strings.IndexByte(")]}", c) >= 0:
			depth--
		}
	}
	return 0
}

// A checker checks rules one by one.
type checker struct {
	set       *Set
	validator *validate.Validator
}

func newChecker(s *Set) (*checker, error) {
	var sch schema.Schema
	sch.SetFilename("schema.cedarschema")
	if err := sch.UnmarshalCedar([]byte(schemaText)); err != nil {
		return nil, err
	}
	resolved, err := sch.Resolve()
	if err != nil {
		return nil, err
	}
	return &checker{s, validate.New(resolved, validate.WithStrict())}, nil
}

// rule reports the first thing that is wrong with a rule.
func (c *checker) rule(r *rule) error {
	if n := count(r.ast); n > maxNodes {
		return fmt.Errorf("has more than %d parts", maxNodes)
	}
	if err := r.annotate(); err != nil {
		return err
	}
	if r.uses = usesOf(r.ast.Action); r.permit && r.uses&useAdminister != 0 {
		return mandate.Invalid("action", "%s can only be forbidden: the roles of operators allow it, and a rule narrows them", administer)
	}
	if err := c.validator.Policy(r.name, explicit(r.ast)); err != nil {
		return errors.New(strings.ReplaceAll(err.Error(), fmt.Sprintf("for policy `%s`, ", r.name), ""))
	}
	if err := c.literals(r); err != nil {
		return err
	}
	if err := c.scope(r); err != nil {
		return err
	}
	if err := r.paths(); err != nil {
		return err
	}
	if r.permit {
		return r.mentions()
	}
	return nil
}

// Version names the policy by its content.
func (s *Set) Version() string { return s.version }

// Len returns how many rules there are.
func (s *Set) Len() int { return len(s.rules) }
