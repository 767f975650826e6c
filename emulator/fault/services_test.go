package fault

import (
	"strings"
	"testing"
	"time"
)

func TestServiceDials(t *testing.T) {
	var p Panel
	for text, good := range map[string]bool{
		`{"replication_delay":"1.5s","challenges":[{"service":"graph","times":2}],"service_errors":[{"code":"900309"}]}`: true,
		`{"replication_delay":"-1s"}`:                  false,
		`{"challenges":[{"service":"login"}]}`:         false,
		`{"challenges":[{"times":-1}]}`:                false,
		`{"challenges":[{"claims":"{"}]}`:              false,
		`{"service_errors":[{}]}`:                      false,
		`{"service_errors":[{"code":"1","times":-1}]}`: false,
	} {
		if err := p.Patch(strings.NewReader(text)); (err == nil) != good {
			t.Errorf("%s: got %v", text, err)
		}
	}
	if got := p.Dials().ReplicationDelay; got != 1500*time.Millisecond {
		t.Errorf("got %v", got)
	}
	for i, want := range []bool{true, true, false} {
		if _, got := p.Challenged("graph", "a@b"); got != want {
			t.Errorf("challenge %d: got %v, want %v", i, got, want)
		}
	}
	for i, want := range []bool{true, false} {
		if e, got := p.ServiceError(); got != want || got && e.Code != "900309" {
			t.Errorf("error %d: got %v, %v, want %v", i, e, got, want)
		}
	}
}
