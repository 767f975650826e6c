// Package graph speaks Microsoft Graph: which of the partner's agent groups a
// user is in, as a consent needs it, with whom the partner has delegated admin
// relationships, and the credentials of our own applications.
//
// It never asks twice by itself, follows no redirect and no link to another
// host, and reads no answer beyond its limit.
package graph

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/upstream"
)

const (
	maxAnswer = 4 << 20 // bytes
	maxPages  = 100     // of up to 999 groups; Entra allows a user far fewer
)

// A Config says where Graph is.
type Config struct {
	// URL is scheme, host and port, as in the cloud's endpoint for
	// [mandate.Graph].
	URL string

	// HTTP makes the requests. Its redirect policy and cookie jar are not
	// used: a token must not follow a redirect. A zero Timeout means 30
	// seconds.
	HTTP *http.Client
}

// A Client calls Graph with whatever token each call brings. It may be used by
// many goroutines.
type Client struct {
	http *http.Client
	base *url.URL // …/v1.0
}

// New returns a client for cfg, or an error wrapping [mandate.ErrInvalid].
func New(cfg Config) (*Client, error) {
	base, err := upstream.ParseOrigin(cfg.URL)
	if err != nil {
		return nil, mandate.Invalid("url", "%.100q %v", cfg.URL, err)
	}
	if cfg.HTTP == nil {
		return nil, mandate.Invalid("http", "is missing")
	}
	base.Path = "/v1.0"
	return &Client{http: upstream.Direct(cfg.HTTP), base: base}, nil
}

// agentGroups are the groups by which Partner Center gives its agent roles.
// They are groups of the partner's directory and no directory roles, so no wids
// claim shows them.
var agentGroups = []string{"AdminAgents", "HelpdeskAgents", "SalesAgents"}

// An object is what memberOf lists: a group, a role or an administrative unit.
type object struct {
	Type            string  `json:"@odata.type"`
	Name            *string `json:"displayName"`
	SecurityEnabled *bool   `json:"securityEnabled"`
}

// group reports whether the object is a group that can carry an agent role. A
// Microsoft 365 group that anybody may make up under the same name cannot.
func (o object) group() bool {
	return strings.EqualFold(o.Type, "#microsoft.graph.group") && (o.SecurityEnabled == nil || *o.SecurityEnabled)
}

// AgentGroups returns which of AdminAgents, HelpdeskAgents and SalesAgents the
// token's user is a direct member of, in that order.
//
// No error and no group means that Graph listed the user's groups and none was
// there. If it hid the names of some, as it does when the token lacks the
// permission to read groups, that would be a guess, and the answer is a
// [*mandate.Fault]; as is everything else that is not a clear answer.
func (c *Client) AgentGroups(ctx context.Context, token mandate.Secret) ([]string, error) {
	return c.agentGroups(ctx, token, c.base.JoinPath("me/memberOf"))
}

// AgentGroupsOf is [Client.AgentGroups] for another user of the token's
// tenant. That there is no such user is an empty answer: Graph knows everybody.
func (c *Client) AgentGroupsOf(ctx context.Context, token mandate.Secret, user mandate.ObjectID) ([]string, error) {
	groups, err := c.agentGroups(ctx, token, c.base.JoinPath("users", user.String(), "memberOf"))
	var f *mandate.Fault
	if errors.As(err, &f) && f.Status == http.StatusNotFound {
		return nil, nil
	}
	return groups, err
}

func (c *Client) agentGroups(ctx context.Context, token mandate.Secret, at *url.URL) ([]string, error) {
	found, hidden := map[string]bool{}, false
	at.RawQuery = url.Values{"$select": {"displayName,securityEnabled"}, "$top": {"999"}}.Encode()
	for n := 0; at != nil; n++ {
		if n == maxPages {
			return nil, unusable("the user's groups fill more than %d pages", maxPages)
		}
		objects, next, err := pageOf[object](ctx, c, token, at)
		if err != nil {
			return nil, err
		}
		for _, o := range objects {
			switch {
			case !o.group():
			case o.Name == nil:
				hidden = true
			default:
				found[*o.Name] = true
			}
		}
		at = next
	}
	in := slices.DeleteFunc(slices.Clone(agentGroups), func(name string) bool { return !found[name] })
	if len(in) == 0 && hidden {
		return nil, &mandate.Fault{Domain: mandate.DomainAudience, Remedy: mandate.RemedyConfigure,
			Description: "Graph hides the names of the user's groups; the application needs the delegated permission GroupMember.Read.All or Directory.Read.All"}
	}
	return in, nil
}

// pageOf returns one page of a list, and where the next is, or nil.
func pageOf[T any](ctx context.Context, c *Client, token mandate.Secret, at *url.URL) ([]T, *url.URL, error) {
	header, body, err := c.ask(ctx, http.MethodGet, token, at)
	if err != nil {
		return nil, nil, err
	}
	var p struct {
		Value *[]T   `json:"value"`
		Next  string `json:"@odata.nextLink"`
	}
	if !upstream.IsJSON(header) || json.Unmarshal(body, &p) != nil || p.Value == nil {
		return nil, nil, unusable("the answer is not a list in JSON")
	}
	if p.Next == "" {
		return *p.Value, nil, nil
	}
	next, err := c.next(p.Next)
	return *p.Value, next, err
}

// next returns the address of a following page if it is Graph's: the token goes
// there.
func (c *Client) next(link string) (*url.URL, error) {
	u, err := url.Parse(link)
	if err != nil || u.Scheme != c.base.Scheme || u.Host != c.base.Host || u.User != nil || !strings.HasPrefix(path.Clean(u.Path), c.base.Path+"/") {
		return nil, unusable("the link to the next page leads elsewhere")
	}
	return u, nil
}

// ask asks for a URL of Graph's, without a body, and returns the answer if its
// status is 200, or 204 where nothing was asked to be read. Every other outcome is a [*mandate.Fault].
func (c *Client) ask(ctx context.Context, method string, token mandate.Secret, u *url.URL) (http.Header, []byte, error) {
	return c.send(ctx, method, token, u, nil)
}

// send is ask with a body in JSON, whose confidential parts are censored in
// errors.
func (c *Client) send(ctx context.Context, method string, token mandate.Secret, u *url.URL, in any, confidential ...mandate.Secret) (http.Header, []byte, error) {
	id := upstream.RequestID()
	var content io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, nil, err
		}
		content = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), content)
	if err != nil {
		return nil, nil, transport(err, id, token, confidential...)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Authorization", "Bearer "+token.Reveal())
	req.Header.Set("Accept", "application/json")
	req.Header.Set("client-request-id", id)
	status, header, body, err := upstream.Do(c.http, req, maxAnswer)
	if err != nil {
		return nil, nil, transport(err, id, token, confidential...)
	}
	if status != http.StatusOK && (status != http.StatusNoContent || method == http.MethodGet) {
		return nil, nil, fault(status, header, body, id, append(confidential, token)...)
	}
	return header, body, nil
}

// transport is the fault of an exchange without an answer. The URL is left out:
// it may hold a continuation token.
func transport(err error, id string, token mandate.Secret, more ...mandate.Secret) *mandate.Fault {
	err = upstream.Redact(redactor(append(more, token)), upstream.WithoutURL(err))
	return &mandate.Fault{Domain: mandate.DomainTransient, Remedy: mandate.RemedyRetry,
		CorrelationID: id, Cause: fmt.Errorf("ask Graph: %w", err)}
}

// redactor takes secrets out of texts.
func redactor(all []mandate.Secret) *strings.Replacer {
	var secrets []string
	for _, s := range all {
		secrets = append(secrets, s.Reveal())
	}
	return upstream.Redactor(secrets...)
}

// unusable is the fault of an answer that cannot be what Graph meant.
func unusable(format string, args ...any) *mandate.Fault {
	return &mandate.Fault{Domain: mandate.DomainTransient, Remedy: mandate.RemedyRetry, Description: "Graph: " + fmt.Sprintf(format, args...)}
}
