package entra

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// An elsewhen is Entra with another clock: it judges assertions by it, with
// five minutes to spare, and dates what it says.
type elsewhen struct {
	*fakeEntra
	ahead time.Duration

	mu      sync.Mutex // guards refused
	refused int
}

func (e *elsewhen) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.Contains(r.URL.Path, "/discovery/") {
		return e.fakeEntra.RoundTrip(r)
	}
	now := time.Now().Add(e.ahead)
	h := http.Header{"Content-Type": {"application/json"}, "Date": {now.UTC().Format(http.TimeFormat)}}
	form := must(url.ParseQuery(string(must(io.ReadAll(r.Body)))))
	time.Sleep(time.Second) // all who ask at once are under way at once
	var times struct{ Nbf, Exp int64 }
	_, rest, _ := strings.Cut(form.Get("client_assertion"), ".")
	body, _, _ := strings.Cut(rest, ".")
	if err := json.Unmarshal(must(base64.RawURLEncoding.DecodeString(body)), &times); err != nil {
		return nil, err
	}
	if time.Unix(times.Nbf, 0).After(now.Add(leeway)) || time.Unix(times.Exp, 0).Before(now.Add(-leeway)) {
		e.mu.Lock()
		e.refused++
		e.mu.Unlock()
		return response(r, 401, h, `{"error":"invalid_client","error_description":"AADSTS700024: Client assertion is not within its valid time range.","error_codes":[700024]}`), nil
	}
	token := good(idToken(map[string]any{"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Unix() + 3600}))
	return response(r, 200, h, answerV2(map[string]any{"id_token": token})), nil
}

// Whose clock is wrong by less than an hour redeems by Entra's, from the first
// request on: what was refused for its time alone is sent again, by all who
// were under way. Farther apart, Entra's word for it is not taken.
func TestClock(t *testing.T) {
	testKey() // outside of the bubble
	for _, tt := range []struct {
		ahead   time.Duration
		refused int  // of ten at once, and ten later
		works   bool // at all
		said    bool // in the log
	}{
		{0, 0, true, false},
		{30 * time.Second, 0, true, false},
		{10 * time.Minute, 0, true, true},   // refused neither by us, as issued in the future,
		{-10 * time.Minute, 10, true, true}, // nor by Entra for good
		{50 * time.Minute, 10, true, true},
		{2 * time.Hour, 20, false, false},
		{-2 * time.Hour, 20, false, false},
	} {
		t.Run(fmt.Sprint(tt.ahead), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				e := &elsewhen{fakeEntra: newFake(), ahead: tt.ahead}
				c := must(New(Config{
					Cloud: testCloud(), Application: app, Credential: must(NewCertificate(newSigner(time.Now().AddDate(1, 0, 0)))),
					HTTP: &http.Client{Transport: e}, Log: slog.New(slog.NewTextHandler(&log, nil)),
				}))
				for range 2 {
					var group sync.WaitGroup
					for range 10 {
						group.Go(func() {
							r, err := c.Redeem(ctx(), redemption(partner))
							if works := err == nil && r.User != nil; works != tt.works {
								t.Errorf("got %v", err)
							}
						})
					}
					group.Wait()
					time.Sleep(time.Second)
				}
				if e.refused != tt.refused {
					t.Errorf("%d requests were refused, want %d", e.refused, tt.refused)
				}
				if said := strings.Contains(log.String(), "Set this host's"); said != tt.said {
					t.Errorf("the log says %q", log.String())
				}
			})
		})
	}
}

// Only what was refused for its time is sent again, and never more than once.
func TestClockRepeatsNothingElse(t *testing.T) {
	for _, code := range []string{"700024", "70008"} {
		f := newFake()
		f.status, f.body = 401, `{"error":"invalid_client","error_description":"AADSTS`+code+`: no.","error_codes":[`+code+`]}`
		f.header = http.Header{"Date": {time.Now().Add(10 * time.Minute).UTC().Format(http.TimeFormat)}}
		_, err := newClient(t, f, V2).Redeem(ctx(), redemption(partner))
		want := map[string]int{"700024": 2, "70008": 1}[code]
		if wantFault(t, err); len(f.forms) != want {
			t.Errorf("%s: sent %d times, want %d", code, len(f.forms), want)
		}
	}
}
