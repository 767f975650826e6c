package portal

import (
	"net/http"

	"github.com/mandate-sam/mandate"
)

// staged are the pages of consents that were proven in full, and wait because
// they would replace something. {until} is until when.
var staged = map[mandate.Reason]guidance{
	mandate.ReasonOtherUser: {
		"Your consent waits for {publisher}",
		"Everything about your consent was proven. But {partner} already has a working consent, given by another account, and so that nobody can take its place unnoticed, {publisher} must agree first. Until then the earlier consent goes on working.",
		"{publisher}’s, until {until}.",
		[]string{"Tell {publisher} that you want to replace the earlier consent, and why. If they agree, yours is active at once; you need not sign in again.", "If they do not agree by {until}, yours is destroyed, and nothing has changed."},
		tracesSure,
	},
	mandate.ReasonWeaker: {
		"Your consent waits, because it is weaker than the present one",
		"Everything about your consent was proven. But {partner} already has a working consent with more permissions or with stronger proof of MFA, and so that it is not weakened unnoticed, {publisher} must agree first. Until then the earlier consent goes on working.",
		"Yours or {publisher}’s, until {until}.",
		[]string{"If you did not mean to give less than before: sign out of Microsoft, open your invitation link again, and accept all the permissions under a fresh sign-in with MFA.", "If you did, tell {publisher}. If they agree, yours is active at once; you need not sign in again.", "If they do not agree by {until}, yours is destroyed, and nothing has changed."},
		tracesSure,
	},
	mandate.ReasonSuspended: {
		"Your consent waits, because that of {partner} is suspended",
		"Everything about your consent was proven. But somebody at {publisher} has suspended the consent of {partner}, and a new sign-in must not undo that by itself.",
		"{publisher}’s, until {until}.",
		[]string{"Ask {publisher} why. If they agree, your new consent is active at once; you need not sign in again.", "If they do not agree by {until}, it is destroyed."},
		tracesSure,
	},
}

// showWaiting renders the page of a consent that waits for a decision.
func (p *Portal) showWaiting(w http.ResponseWriter, status int, o Outcome, g guidance) error {
	return p.showGuidance(w, status, o, g, func(page *refusalPage) {
		page.Status, page.Class, page.Waits = "Proven, and waiting", "notyet", o.Refused.Waits
	})
}
