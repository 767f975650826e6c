package portal

import (
	"net/http"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

// traces says what a refused sign-in leaves behind in the partner's tenant,
// which this site can neither see nor undo.
type traces string

const (
	tracesNone  traces = ""
	tracesMaybe traces = "may now exist"
	tracesSure  traces = "now exist"
)

// guidance is the page of one reason: what happened, whose move it is, what to
// do next. The words {publisher}, {application}, {partner}, {user} and {api}
// stand for what the page knows.
type guidance struct {
	title  string
	what   string
	whose  string
	next   []string
	traces traces
}

// again is the step that ends most pages.
const again = "Then open your invitation link again; it stays valid until it is used or expires."

var guidances = map[mandate.Reason]guidance{
	mandate.ReasonDeclined: {
		"You did not consent",
		"You pressed Cancel on Microsoft’s consent page. That is your right, and nothing was changed.",
		"Yours, if you change your mind.",
		[]string{"If a permission worried you, ask {publisher} why {application} needs it.", "If it was a slip, open your invitation link again and press Accept on Microsoft’s page."},
		tracesNone,
	},
	mandate.ReasonAdmin: {
		"An administrator must consent",
		"Your organisation lets only administrators consent to {application}. Your account is not allowed to.",
		"An administrator’s of {partner}.",
		[]string{"Ask a Global Administrator, or a Privileged Role Administrator, of {partner} to allow it: in the Entra admin center under Enterprise applications → Consent and permissions, or in the request that Microsoft’s page may have sent to them.", "If the administrator is to sign in here personally, ask {publisher} for an invitation for that account.", again},
		tracesNone,
	},
	mandate.ReasonTenant: {
		"That account belongs to another organisation",
		"The invitation is for {partner}, and the account that signed in belongs to another tenant.",
		"Yours.",
		[]string{"Sign out of Microsoft, or open the invitation link in a private window.", "Sign in with an account of {partner}; its tenant ID is shown below.", "If {partner} is not your organisation, tell {publisher}: you have somebody else’s invitation."},
		tracesMaybe,
	},
	mandate.ReasonUser: {
		"That is not the invited account",
		"The invitation is for one account, {user}, and another one signed in.",
		"Yours.",
		[]string{"Open the invitation link in a private window and sign in as {user}.", "If somebody else should consent, ask {publisher} for an invitation for that account."},
		tracesSure,
	},
	mandate.ReasonGuest: {
		"Guests cannot consent for {partner}",
		"You signed in as a guest of the tenant, or with a personal Microsoft account. A consent on behalf of {partner} must come from an account that {partner} itself manages.",
		"Yours.",
		[]string{"Sign in with a work account that was created in the tenant of {partner}.", "If there is none, an administrator of {partner} can create one and add it to the Admin Agents in Partner Center.", again},
		tracesSure,
	},
	mandate.ReasonMFA: {
		"Multi-factor authentication was not proven",
		"Microsoft requires that a partner’s consent is given under multi-factor authentication (MFA), and Microsoft’s answers do not confirm it for this sign-in.",
		"Yours, and an administrator’s of {partner} if MFA is not set up for your account.",
		[]string{"Set up MFA for your account at https://mysignins.microsoft.com/security-info.", "An administrator of {partner} should make sure that security defaults or a conditional access policy demand MFA at every sign-in of your account. MFA by another identity provider must be reported to Entra.", "Sign out of Microsoft, so that the next sign-in asks for MFA anew. " + again},
		tracesMaybe,
	},
	mandate.ReasonRole: {
		"Your account is not an agent of {partner}",
		"The consent works with the rights of the account that gives it, and yours is neither in the Admin Agents nor in the Sales Agents of Partner Center. It would reach no customer.",
		"An administrator’s of {partner}.",
		[]string{"A Global Administrator of {partner} opens Partner Center → Account settings → User management, and makes your account an Admin agent or a Sales agent, as {publisher} advises.", "Wait about an hour, until Microsoft has made it known everywhere.", again},
		tracesSure,
	},
	mandate.ReasonRoleUnknown: {
		"We could not see whether you are an agent",
		"Microsoft Graph did not tell whether your account is in the Admin Agents or Sales Agents of {partner}, and without an answer we do not accept the consent.",
		"Yours, in a few minutes.",
		[]string{"Wait ten minutes. " + again, "If it happens again, give {publisher} the reference below: the application may lack the permission to see your groups."},
		tracesSure,
	},
	mandate.ReasonAudience: {
		"One of the services did not accept the consent",
		"You signed in and consented, but Microsoft gave no access to {api}. A consent that works only in part is not accepted.",
		"{publisher}’s, most likely.",
		[]string{"Give {publisher} the reference below: the permission for {api} may be missing from the application’s registration.", "If {api} has never been used in your tenant, an administrator of {partner} may have to sign in to it once.", again},
		tracesSure,
	},
	mandate.ReasonConditional: {
		"A conditional access policy refused",
		"A conditional access policy of {partner} did not allow the access that you had just consented to: for instance by location, device, or sign-in risk.",
		"An administrator’s of {partner}.",
		[]string{"An administrator of {partner} finds the refused sign-in in the Entra admin center → Sign-in logs, by the correlation ID below; the tab Conditional Access names the policy.", "That policy must allow {application}; ask {publisher} from which addresses its servers call.", again},
		tracesMaybe,
	},
	mandate.ReasonToken: {
		"Microsoft’s answer could not be verified",
		"The proof of who signed in did not pass our checks, so we trust none of the answer.",
		"{publisher}’s.",
		[]string{"Give {publisher} the reference below.", "Trying again is safe, but do so only once: it will rarely help."},
		tracesMaybe,
	},
	mandate.ReasonTransaction: {
		"This sign-in cannot be finished here",
		"The answer that came from Microsoft does not belong to a sign-in that this browser has begun and not yet finished: it was begun in another browser, was finished before, or took longer than ten minutes. Blocked cookies look the same.",
		"Yours.",
		[]string{"If you have just seen a receipt or another result, that one counts: go back to it.", "Otherwise open your invitation link, press Continue in the same browser, and finish within ten minutes.", "Allow this site to set cookies; a private window without extensions often helps.", "If you did not try to sign in just now, close this page: somebody may have sent you here."},
		tracesMaybe,
	},
	mandate.ReasonInvitation: {
		"This invitation does not open",
		"It was used already, has expired, or the link is not complete. An invitation is good for one consent.",
		"Yours, then {publisher}’s.",
		[]string{"Check that you opened the whole link: some mail programs break long links in two.", "Ask {publisher} for a new invitation."},
		tracesNone,
	},
	mandate.ReasonOtherUser: {
		"Another person’s consent is in use",
		"{partner} already has a working consent, given by another account. So that nobody can take its place unnoticed, {publisher} must agree first. The earlier consent goes on working.",
		"{publisher}’s.",
		[]string{"Tell {publisher} that you want to replace the earlier consent, and why.", "Or let the person who gave it sign in and renew it."},
		tracesSure,
	},
	mandate.ReasonWeaker: {
		"The new consent would be weaker than the present one",
		"{partner} already has a working consent with more permissions or with stronger proof of MFA. So that it is not weakened unnoticed, {publisher} must agree first. The earlier consent goes on working.",
		"Yours or {publisher}’s.",
		[]string{"Sign out of Microsoft, open your invitation link again, and accept all the permissions under a fresh sign-in with MFA.", "If you mean to give less than before, tell {publisher}."},
		tracesSure,
	},
	mandate.ReasonSuspended: {
		"The consent of {partner} is suspended",
		"Somebody at {publisher} has suspended it, and a new sign-in must not undo that.",
		"{publisher}’s.",
		[]string{"Ask {publisher} why, and whether they will resume it. Signing in again will not help before that."},
		tracesMaybe,
	},
	mandate.ReasonEnded: {
		"There is no consent any more to renew",
		"Meanwhile the consent of {partner} was withdrawn, or another one took its place. A renewal brings nothing back that was withdrawn.",
		"{publisher}’s, if there is to be a consent again.",
		[]string{"See on the page of your consent how it stands, and who did what.", "To begin again, ask {publisher} for an invitation."},
		tracesSure,
	},
	mandate.ReasonApplication: {
		"{application} could not identify itself",
		"Microsoft did not accept the application’s own credential or registration. Your sign-in was in order.",
		"{publisher}’s.",
		[]string{"Give {publisher} the reference below; they must repair their registration or renew their credential.", again},
		tracesMaybe,
	},
	mandate.ReasonUnavailable: {
		"Microsoft did not answer",
		"Entra or Partner Center was too busy, or out of reach, before everything was checked.",
		"Nobody’s: it passes.",
		[]string{"Wait ten minutes. " + again, "If it lasts, Microsoft’s service health page tells more."},
		tracesMaybe,
	},
	mandate.ReasonEntra: {
		"Microsoft reported an error",
		"The sign-in came back from Microsoft with an error that we have no better words for; what Microsoft says about it is below.",
		"{publisher}’s, unless Microsoft’s words point to you.",
		[]string{"Read what Microsoft says. If it names something that you can change, change it.", "Otherwise give {publisher} the reference below.", again},
		tracesMaybe,
	},
	mandate.ReasonNoRefresh: {
		"The consent would not last",
		"Microsoft’s answer lets {application} work now, but not later: the lasting part (the permission “Maintain access to data you have given it access to”) is missing.",
		"{publisher}’s, or an administrator’s of {partner}.",
		[]string{"An administrator of {partner} checks whether a policy limits offline access or how long sign-ins last for {application}.", "Otherwise give {publisher} the reference below: the permission may be missing from the application’s registration.", again},
		tracesSure,
	},
	mandate.ReasonSiteProblem: {
		"This site could not finish",
		"Something went wrong on our side after you signed in. It was not your doing.",
		"{publisher}’s.",
		[]string{"Wait a few minutes. " + again, "If it happens again, give {publisher} the reference below."},
		tracesMaybe,
	},
	mandate.ReasonUnacceptable: {
		"The answer was not one that this site asks for",
		"What was sent here has parts that Microsoft never sends in answer to our request: a token, a field twice, or no proper form at all. We looked at none of it.",
		"Yours.",
		[]string{"Open your invitation link again, in a private window without extensions, and sign in from there.", "If it happens again, tell {publisher}: something between you and Microsoft may be changing what is sent."},
		tracesMaybe,
	},
}

// renewalWords are for whoever began without an invitation.
var renewalWords = strings.NewReplacer(
	again, "Then renew again, from the page of your consent.",
	"Then open your invitation link again", "Then renew again, from the page of your consent",
	"open your invitation link again, and accept", "renew again, from the page of your consent, and accept",
	"open your invitation link again and press", "renew again, from the page of your consent, and press",
	"Open your invitation link again, in a private window without extensions, and sign in from there", "Renew again, in a private window without extensions",
	"Otherwise open your invitation link, press Continue in the same browser", "Otherwise renew again in the same browser",
	"Sign out of Microsoft, or open the invitation link in a private window.", "Sign out of Microsoft, or renew in a private window.",
	"Open the invitation link in a private window and sign in as {user}.", "Renew in a private window, and sign in to Microsoft with the account that you are signed in with here.",
	"The invitation is for one account, {user}, and another one signed in.", "The renewal was begun by one account, and another one signed in at Microsoft.",
	"That is not the invited account", "That is not the account that began",
	"The invitation is for {partner}", "The renewal is for {partner}",
	"you have somebody else’s invitation", "something is wrong",
)

// A refusalPage says why there is no consent, and what to do.
type refusalPage struct {
	Outcome
	App                *Application // nil if it is not known whose invitation it was
	Status, Class      string
	Waits              time.Time // until when it can be decided on; zero if nothing was stored
	What, Whose, Trace string
	Next               []string
}

// refuse shows a refusal that belongs to no known partner. It is logged, and
// not recorded: strangers could fill the record otherwise.
func (p *Portal) refuse(w http.ResponseWriter, r *http.Request, status int, refusal *mandate.Refusal) error {
	p.logRefusal(r, refusal, refusal)
	return p.showRefusal(w, status, Outcome{Request: web.RequestID(r.Context()), Refused: refused(refusal)})
}

// showRefusal renders the page of a reason. A reason that has none, or an
// outcome without one, is treated as a problem of this site.
func (p *Portal) showRefusal(w http.ResponseWriter, status int, o Outcome) error {
	if o.Refused == nil {
		o.Refused = &Refused{Reason: mandate.ReasonSiteProblem}
	}
	if g, ok := staged[o.Refused.Reason]; ok && !o.Refused.Waits.IsZero() {
		return p.showWaiting(w, status, o, g)
	}
	g, ok := guidances[o.Refused.Reason]
	if !ok {
		g = guidances[mandate.ReasonSiteProblem]
	}
	return p.showGuidance(w, status, o, g, func(page *refusalPage) {
		page.Status, page.Class = "No consent was stored", "bad"
		if o.Refused.Reason == mandate.ReasonTransaction {
			page.Status = "Nothing was changed" // an earlier answer may well have been a consent
		}
	})
}

// showGuidance renders a page of guidance, after finish has completed it.
func (p *Portal) showGuidance(w http.ResponseWriter, status int, o Outcome, g guidance, finish func(*refusalPage)) error {
	app, _ := p.application(o.Partner.Key) // the page does without
	say := p.words(o, app)
	page := &refusalPage{Outcome: o, App: app, What: say(g.what), Whose: say(g.whose), Trace: string(g.traces)}
	for _, step := range g.next {
		page.Next = append(page.Next, say(step))
	}
	finish(page)
	return p.show(w, status, "refusal", say(g.title), page)
}

// words returns a function that fills in what the page knows. A sentence
// begins with a capital even if it begins with a word that was filled in.
func (p *Portal) words(o Outcome, app *Application) func(string) string {
	publisher, application, partner, api := "the company that invited you", "the application", "your organisation", "one of the services"
	if app != nil {
		publisher, application = app.Publisher, app.Name
		if o.Refused.Audience != "" {
			api = app.apiName(o.Refused.Audience)
		}
	}
	if o.Partner.DisplayName != "" {
		partner = o.Partner.DisplayName
	}
	user := o.User
	if user == "" {
		user = "the invited account"
	}
	replace := strings.NewReplacer("{publisher}", publisher, "{application}", application, "{partner}", partner, "{user}", user, "{api}", api, "{until}", when(o.Refused.Waits))
	return func(s string) string {
		if o.Renewal {
			s = renewalWords.Replace(s)
		}
		s = replace.Replace(s)
		return strings.ToUpper(s[:1]) + s[1:]
	}
}
