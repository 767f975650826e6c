package partnercenter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/mandate-sam/mandate"
)

// MFACompliant asks Partner Center, with ValidateMfa, whether the token proves
// MFA. It is true only for an unambiguous yes: one isMfaCompliant header that
// says true, and nothing in the body that says otherwise. A header that is
// absent, repeated, unparsable or contradicted is false with a reason, as is a
// call that was refused for want of MFA (900421). Everything else is a
// [*mandate.Fault].
//
// The call is for the partner's organization profile: the one resource that
// every partner has and every user of the partner's may read.
func (c *Client) MFACompliant(ctx context.Context, token mandate.Secret) (ok bool, reason string, err error) {
	header, body, err := c.get(ctx, token, c.base.JoinPath("profiles/organization"), http.Header{"Validatemfa": {"true"}})
	if e, refused := errors.AsType[*Error](err); refused && e.Status == http.StatusUnauthorized && e.Code == codeMFA {
		return false, "Partner Center refused the token because it was obtained without MFA (" + codeMFA + ")", nil
	}
	if err != nil {
		return false, "", err
	}
	ok, reason = verdict(header, body)
	return ok, reason, nil
}

// verdict reads what Partner Center thinks of the token.
func verdict(h http.Header, body []byte) (ok bool, reason string) {
	values := h.Values("isMfaCompliant")
	if len(values) != 1 {
		return false, fmt.Sprintf("Partner Center gave %d MFA verdicts in its headers, and one was expected", len(values))
	}
	ok, valid := parseBool(values[0])
	if !valid {
		return false, "Partner Center's MFA verdict is neither true nor false"
	}
	if !ok {
		return false, "Partner Center says that the token was obtained without MFA"
	}
	var profile struct {
		Compliant json.RawMessage `json:"isMfaCompliant"`
	}
	if err := decode(h, body, &profile); err != nil {
		return false, "Partner Center's MFA verdict came with an unreadable answer: " + err.Error()
	}
	if profile.Compliant == nil {
		return true, ""
	}
	if again, _ := parseBool(strings.Trim(string(profile.Compliant), `"`)); !again {
		return false, "Partner Center's MFA verdict contradicts itself: the header says true and the body does not"
	}
	return true, ""
}

func parseBool(s string) (value, valid bool) {
	value = strings.EqualFold(s, "true")
	return value, value || strings.EqualFold(s, "false")
}
