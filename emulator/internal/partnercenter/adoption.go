package partnercenter

import (
	"cmp"
	"slices"
	"time"
)

const day = "2006-01-02"

// adoption says of each day and application how many calls were made with a
// user's token and how many of those tokens proved MFA. It is a bare list,
// the latest day first.
func (s *Server) adoption(c call) (reply, error) {
	from, to := c.URL.Query().Get("startDate"), c.URL.Query().Get("endDate")
	for _, date := range []string{from, to} {
		if _, err := time.Parse(day, date); date != "" && err != nil {
			return reply{}, errBadRequest
		}
	}
	type row struct{ date, application string }
	total, good := map[row]int{}, map[row]int{}
	for _, r := range s.recorded(c) {
		k := row{r.time.UTC().Format(day), r.application}
		if from != "" && k.date < from || to != "" && k.date > to {
			continue
		}
		if total[k]++; r.mfa {
			good[k]++
		}
	}
	rows := make([]row, 0, len(total))
	for k := range total {
		rows = append(rows, k)
	}
	slices.SortFunc(rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(b.date, a.date), cmp.Compare(a.application, b.application))
	})
	list := []any{}
	for _, k := range rows {
		a, _ := s.cfg.Directory.Application(k.application)
		list = append(list, map[string]any{
			"loginDate": k.date, "mfaCompliantRequestCount": good[k], "totalRequestCount": total[k],
			"applicationId": k.application, "applicationName": a.Name,
		})
	}
	return reply{status: 200, list: list}, nil
}

// withoutMFA lists the users who called without MFA in the last seven days,
// with the time of the last such call.
func (s *Server) withoutMFA(c call) (reply, error) {
	since := s.cfg.Dials.Now().AddDate(0, 0, -7)
	last := map[string]record{}
	for _, r := range s.recorded(c) {
		if !r.mfa && !r.time.Before(since) {
			last[r.objectID] = r
		}
	}
	users := make([]record, 0, len(last))
	for _, r := range last {
		users = append(users, r)
	}
	slices.SortFunc(users, func(a, b record) int { return cmp.Or(b.time.Compare(a.time), cmp.Compare(a.upn, b.upn)) })
	return ok(page(c, users, "/nonMfaCompliantPartnerPrincipals", func(r record) map[string]any {
		return map[string]any{
			"objectId": r.objectID, "tenantId": c.partner.ID, "upn": r.upn, "lastNonMfaCompliantRequestDateTime": r.time.UTC().Format(time.RFC3339Nano),
		}
	}))
}
