package mandate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// noSchedule is one that is never looked at.
type noSchedule struct{ Schedule }

func TestForecast(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Grant)
		alone  bool   // nothing keeps grants alive
		want   string // kind@days move, in order
	}{
		"kept alive":            {func(*Grant) {}, false, "grant_end@300 partner"},
		"ends before it lapses": {func(g *Grant) { g.Until = time.Now().AddDate(0, 0, 10) }, true, "grant_end@10 partner"},
		"ended":                 {func(g *Grant) { g.Until = time.Now().AddDate(0, 0, -3) }, false, "grant_end@-3 partner"},
		"imported":              {func(g *Grant) { g.Origin = OriginImport }, false, "import_end@300 partner"},
		"nothing keeps it":      {func(*Grant) {}, true, "grant_lapse@89 operator, grant_end@300 partner"},
		"suspended":             {func(g *Grant) { g.State = StateSuspended }, false, "grant_lapse@89 operator, grant_end@300 partner"},
		"failing": {func(g *Grant) { g.Failures, g.LastFault, g.Attempted = 3, "grant fault: invalid_grant", time.Now() }, false,
			"keep_alive@0 partner, grant_lapse@89 operator, grant_end@300 partner"},
		"candidate":      {func(g *Grant) { g.State, g.Fallback = StateCandidate, time.Now().AddDate(0, 0, 5) }, false, "candidate@5 operator"},
		"candidate over": {func(g *Grant) { g.State, g.Fallback = StateCandidate, time.Now() }, false, ""},
		"withdrawn":      {func(g *Grant) { g.State = StateWithdrawn }, false, ""},
		"fall-back":      {func(g *Grant) { g.State = StateFallback }, false, ""},
		"of nobody":      {func(g *Grant) { g.Key.Partner = adatum }, false, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.cfg.KeepAlive.Schedule = noSchedule{}
			if tt.alone {
				w.cfg.KeepAlive.Schedule = nil
			}
			g := &w.vault.grants[0]
			g.Until, g.Redeemed = time.Now().AddDate(0, 0, 300), time.Now().AddDate(0, 0, -1)
			tt.change(g)
			all, err := w.Forecast(t.Context(), func(k GrantKey) string { return map[GrantKey]string{testKey: "contoso"}[k] })
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range all {
				got = append(got, fmt.Sprintf("%s@%.0f %s", f.Kind, time.Until(f.Time).Hours()/24, f.Move))
				if f.Partner != "contoso" || f.What == "" || f.Do == "" {
					t.Errorf("%s: %+v", name, f)
				}
			}
			if s := strings.Join(got, ", "); s != tt.want {
				t.Errorf("%s: got %s, want %s", name, s, tt.want)
			}
		})
	}
}

// lostCustody cannot list.
type lostCustody struct{ Custody }

func (lostCustody) Grants(context.Context, TenantID) ([]Grant, error) { return nil, ErrUnavailable }

func TestForecastUnknown(t *testing.T) {
	w := newWorld(t)
	w.cfg.Custody = lostCustody{}
	if _, err := w.Forecast(t.Context(), func(GrantKey) string { return "x" }); !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if w.Window() != 90*24*time.Hour {
		t.Errorf("window %v", w.Window())
	}
}
