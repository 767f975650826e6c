package portal

import (
	"fmt"
	"time"

	"github.com/mandate-sam/mandate"
)

// A withdrawnPage is the report on a withdrawal, in plain words.
type withdrawnPage struct {
	Report mandate.Withdrawal
	Person Person
	App    *Application
	Now    time.Time
}

// A reportLine is one of the four lines of the report.
type reportLine struct {
	Title, Result, Class string
	Says                 string
	Detail               string // as in the record
}

// results are what an outcome is called, and its colour.
var results = map[mandate.Result][2]string{
	mandate.ResultDone:         {"Done", "good"},
	mandate.ResultFailed:       {"Not done", "bad"},
	mandate.ResultNotPermitted: {"Not possible", "notyet"},
	mandate.ResultNotAsked:     {"Not asked for", "notyet"},
}

// Over reports whether nothing that was handed out before is still good.
func (p *withdrawnPage) Over() bool { return p.Report.Tokens.Result == mandate.ResultDone }

// Lines says what became of each part.
func (p *withdrawnPage) Lines() []reportLine {
	w := &p.Report
	return []reportLine{
		line("The key that we kept", w.Local, "It is destroyed, everywhere within our reach. "+p.App.Name+" gets no new pass on your behalf."),
		line("At Microsoft", w.Upstream, p.upstream()),
		line("Passes that were handed out before", w.Tokens, p.passes()),
		line("Copies out of our reach", w.Copies, p.copies()),
	}
}

func line(title string, l mandate.Line, says string) reportLine {
	r, ok := results[l.Result]
	if !ok {
		r = [2]string{string(l.Result), "bad"}
	}
	return reportLine{title, r[0], r[1], says, l.Text}
}

// upstream claims that the key is revoked only if Microsoft refused it.
func (p *withdrawnPage) upstream() string {
	w := &p.Report
	switch {
	case w.Revoked:
		return "Microsoft was asked afterwards, and refuses the key: it is revoked."
	case w.Upstream.Result == mandate.ResultNotAsked:
		return "Microsoft was told nothing. If somebody else had a copy of the key, Microsoft would still accept it" + until(w.Upstream.Until) + ". Your administrator can end that now, as described below."
	case w.Upstream.Result == mandate.ResultNotPermitted:
		return "Microsoft does not let this site end the sessions. If somebody else had a copy of the key, Microsoft would still accept it" + until(w.Upstream.Until) + ". Your administrator can end that now, as described below."
	}
	return "Microsoft was asked to end the sessions, and it is not certain that the key is refused now. Your administrator can make sure, as described below."
}

// passes says how long what was handed out still opens.
func (p *withdrawnPage) passes() string {
	w := &p.Report
	switch {
	case w.Tokens.Result == mandate.ResultDone:
		return "None is still good."
	case w.Alive == 0:
		return "How many are still good is not known. None lives much longer than an hour."
	}
	n := "One pass (an access token) is"
	if w.Alive > 1 {
		n = fmt.Sprintf("%d passes (access tokens) are", w.Alive)
	}
	return n + " still good" + until(w.Tokens.Until) + ". Nobody can take a pass back, Microsoft neither; no new one is handed out."
}

// copies says from when backups are harmless.
func (p *withdrawnPage) copies() string {
	w := &p.Report
	switch {
	case w.Revoked:
		return "Backups may still have the encrypted key. It is worthless, because Microsoft refuses it."
	case w.Copies.Until.IsZero():
		return "Backups may still have the encrypted key. From when on it is worthless is not known."
	}
	return "Backups may still have the encrypted key. It is worthless from " + when(w.Copies.Until) + " on, or as soon as your administrator has removed the application."
}

func until(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " until " + when(t)
}
