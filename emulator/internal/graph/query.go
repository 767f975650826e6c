package graph

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const context = "https://graph.microsoft.com/v1.0/$metadata#"

const (
	defaultTop = 100
	maxTop     = 999
)

// page is the part of the list that the request's query options ask for. A
// list that goes on says where. Only what is asked for is shown, unless a
// $filter has to look at everything.
func page[T any](c call, kind string, all []T, show func(T) map[string]any) (map[string]any, error) {
	q := c.URL.Query()
	top, at, err := window(q)
	if err != nil {
		return nil, err
	}
	if text := q.Get("$filter"); text != "" {
		items, err := filter(shown(all, show), text)
		if err != nil {
			return nil, err
		}
		return part(c, kind, items, asIs, top, at)
	}
	return part(c, kind, all, show, top, at)
}

func shown[T any](all []T, show func(T) map[string]any) []map[string]any {
	items := make([]map[string]any, 0, len(all))
	for _, t := range all {
		items = append(items, show(t))
	}
	return items
}

func part[T any](c call, kind string, all []T, show func(T) map[string]any, top, at int) (map[string]any, error) {
	if at > len(all) {
		return nil, errQuery
	}
	q, end := c.URL.Query(), min(at+top, len(all))
	value := []any{}
	for _, m := range shown(all[at:end], show) {
		value = append(value, pick(m, q.Get("$select")))
	}
	body := map[string]any{"@odata.context": context + kind, "value": value}
	if strings.EqualFold(q.Get("$count"), "true") {
		body["@odata.count"] = len(all)
	}
	if end < len(all) {
		body["@odata.nextLink"] = nextLink(c.Request, q, end)
	}
	return body, nil
}

// asIs shows what is an object already.
func asIs(m map[string]any) map[string]any { return m }

// window reads $top and $skiptoken.
func window(q url.Values) (top, at int, err error) {
	top = defaultTop
	if q.Has("$top") {
		if top, err = strconv.Atoi(q.Get("$top")); err != nil || top < 1 || top > maxTop {
			return 0, 0, errQuery
		}
	}
	if q.Has("$skiptoken") {
		b, err := base64.RawURLEncoding.DecodeString(q.Get("$skiptoken"))
		if err != nil {
			return 0, 0, errQuery
		}
		if at, err = strconv.Atoi(string(b)); err != nil || at < 0 {
			return 0, 0, errQuery
		}
	}
	return top, at, nil
}

// nextLink is the URL of the next page, at the host that the client used.
func nextLink(r *http.Request, q url.Values, at int) string {
	q.Set("$skiptoken", base64.RawURLEncoding.EncodeToString([]byte(strconv.Itoa(at))))
	u := url.URL{Scheme: "https", Host: r.Host, Path: r.URL.Path, RawQuery: q.Encode()}
	return u.String()
}

// one is a single object, with the context that says so.
func one(c call, kind string, m map[string]any) (reply, error) {
	m = pick(m, c.URL.Query().Get("$select"))
	m["@odata.context"] = context + kind + "/$entity"
	return ok(m, nil)
}

// pick keeps the properties that $select names; all of them if it is empty.
func pick(m map[string]any, names string) map[string]any {
	if names == "" {
		return m
	}
	kept := map[string]any{}
	for _, name := range strings.Split(names, ",") {
		for k, v := range m {
			if strings.EqualFold(k, strings.TrimSpace(name)) || strings.HasPrefix(k, "@odata.type") {
				kept[k] = v
			}
		}
	}
	return kept
}

// clause is one condition of a $filter: either an equation or startswith.
var clause = regexp.MustCompile(`(?i)^\s*(?:([a-z][a-z0-9/]*)\s+eq\s+('(?:[^']|'')*'|[a-z0-9-]+)|startswith\(\s*([a-z][a-z0-9/]*)\s*,\s*('(?:[^']|'')*')\s*\))\s*`)

// and joins two clauses.
var and = regexp.MustCompile(`(?i)^and\s+`)

// filter keeps the items for which all clauses of the $filter hold.
func filter(items []map[string]any, text string) ([]map[string]any, error) {
	for text != "" {
		m := clause.FindStringSubmatch(text)
		if m == nil {
			return nil, errQuery
		}
		text = text[len(m[0]):]
		if joint := and.FindString(text); joint != "" && len(joint) < len(text) {
			text = text[len(joint):]
		} else if text != "" {
			return nil, errQuery
		}
		path, want, starts := m[1]+m[3], unquote(m[2]+m[4]), m[3] != ""
		items = slices.DeleteFunc(slices.Clone(items), func(item map[string]any) bool {
			got, found := lookup(item, strings.Split(path, "/"))
			if starts {
				return !found || !strings.HasPrefix(strings.ToLower(got), strings.ToLower(want))
			}
			return !found || !strings.EqualFold(got, want)
		})
	}
	return items, nil
}

func unquote(s string) string {
	if inner, quoted := strings.CutPrefix(s, "'"); quoted {
		return strings.ReplaceAll(strings.TrimSuffix(inner, "'"), "''", "'")
	}
	return s
}

// lookup returns the item's property, as text.
func lookup(item map[string]any, path []string) (string, bool) {
	for k, v := range item {
		if !strings.EqualFold(k, path[0]) {
			continue
		}
		if len(path) > 1 {
			inner, isMap := v.(map[string]any)
			if !isMap {
				return "", false
			}
			return lookup(inner, path[1:])
		}
		if v == nil {
			return "null", true
		}
		return fmt.Sprint(v), true
	}
	return "", false
}
