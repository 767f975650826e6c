package policy

import (
	"strings"
	"testing"
)

// What is easily lost: each row is a condition, and whether a request holds.
func TestPolicyEdges(t *testing.T) {
	base := Hypothetical{Caller: "b", Partner: "c", Customer: adatum, Audience: "graph", Purpose: "p", Ticket: "T"}
	for _, tt := range []struct {
		name, old, new string
		change         func(*Hypothetical)
		want           bool
	}{
		{"a context that is taken whole", "};", `&& {"c": context}.c.ticket == "T" };`, func(*Hypothetical) {}, true},
		{"a shadow that fails", good, good + `@id("s") @shadow("true") forbid (principal, action, resource) when { context.weekday + 9223372036854775807 > 0 };`, func(*Hypothetical) {}, true},
		{"the same in earnest", good, good + `@id("s") forbid (principal, action, resource) when { context.weekday + 9223372036854775807 > 0 };`, func(*Hypothetical) {}, false},
		{"a purpose that is no name", `== Purpose::"p"`, `!= Purpose::"x"`, func(h *Hypothetical) { h.Purpose = "p\u200b" }, false},
		{"another purpose than one", `== Purpose::"p"`, `!= Purpose::"x"`, func(*Hypothetical) {}, true},
		{"a call below the partner as its own customer", `"graph"`, `"partnercenter"`, func(h *Hypothetical) {
			h.Customer, h.Audience, h.Method, h.Path = "", "partnercenter", "GET", "/v1/customers/"+OwnTenant+"/x"
		}, false},
		{"a call below a customer", `"graph"`, `"partnercenter"`, func(h *Hypothetical) {
			h.Customer, h.Audience, h.Method, h.Path = "", "partnercenter", "GET", "/v1/customers/"+adatum+"/x"
		}, true},
	} {
		s, err := Compile(Source{{"p.cedar", strings.Replace(good, tt.old, tt.new, 1)}}, clouds())
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		h := base
		tt.change(&h)
		req, at, err := h.Request(clouds())
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if d := s.decide(req, s.index.find(req), nil, at); d.Allowed != tt.want {
			t.Errorf("%s: got %+v", tt.name, d)
		}
	}
}
