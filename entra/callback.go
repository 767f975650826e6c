package entra

import (
	"github.com/mandate-sam/mandate"
)

// refusals are the reasons behind the AADSTS numbers that come back through the
// browser. A number that is not listed goes by the error.
var refusals = map[int]mandate.Reason{
	65004: mandate.ReasonDeclined,
	90094: mandate.ReasonAdmin, 90093: mandate.ReasonAdmin, 65001: mandate.ReasonAdmin, 90095: mandate.ReasonAdmin,

	50020: mandate.ReasonTenant, 50034: mandate.ReasonTenant, 51004: mandate.ReasonTenant, 16003: mandate.ReasonTenant,
	90072: mandate.ReasonTenant, 50177: mandate.ReasonTenant,
	50105: mandate.ReasonUser, 50057: mandate.ReasonUser, 50053: mandate.ReasonUser,

	50076: mandate.ReasonMFA, 50079: mandate.ReasonMFA, 50074: mandate.ReasonMFA, 50072: mandate.ReasonMFA, 50078: mandate.ReasonMFA,

	53003: mandate.ReasonConditional, 53000: mandate.ReasonConditional, 53001: mandate.ReasonConditional,
	53002: mandate.ReasonConditional, 53004: mandate.ReasonConditional, 53011: mandate.ReasonConditional,
	530032: mandate.ReasonConditional, 530033: mandate.ReasonConditional, 530034: mandate.ReasonConditional,
	530035: mandate.ReasonConditional, 50158: mandate.ReasonConditional, 70043: mandate.ReasonConditional,
	500212: mandate.ReasonConditional, 500213: mandate.ReasonConditional, 500021: mandate.ReasonConditional,
}

// Callback says why a sign-in came back with an error (RFC 6749, section
// 4.1.2.1): error and error_description as they were posted. Both were carried
// by a browser, so anybody may have written them; they decide which page is
// shown and nothing else.
func Callback(errorCode, description string) *mandate.Refusal {
	f := describe(errorCode, description)
	f.Domain, f.Remedy = classify(f, true)
	return &mandate.Refusal{Reason: reason(f), Detail: "the sign-in came back with an error", Fault: f}
}

func reason(f *mandate.Fault) mandate.Reason {
	for _, code := range f.Codes {
		if r, ok := refusals[code]; ok {
			return r
		}
		if verdicts[code] == faultBusy {
			return mandate.ReasonUnavailable
		}
	}
	switch f.OAuthError {
	case "access_denied":
		if len(f.Codes) > 0 { // denied, but not by the person
			return mandate.ReasonEntra
		}
		return mandate.ReasonDeclined
	case "consent_required":
		return mandate.ReasonAdmin
	case "temporarily_unavailable", "server_error":
		return mandate.ReasonUnavailable
	}
	return mandate.ReasonEntra
}
