package main

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// The page to sign in at is shown as it is to be opened, on a line of its own,
// and to programs as JSON.
func TestAskToOpen(t *testing.T) {
	for _, tt := range []struct {
		json bool
		want string
	}{
		{false, "Open this page in a browser on this machine, and sign in:\n\n  https://login.test/a?b=%20\n\n"},
		{true, `{"open":"https://login.test/a?b=%20"}` + "\n"},
	} {
		var out bytes.Buffer
		c := &cli{stdio: stdio{err: &out}, json: tt.json}
		if c.askToOpen("https://login.test/a?b=%20"); out.String() != tt.want {
			t.Errorf("got %q, want %q", out.String(), tt.want)
		}
	}
}

// The page that a browser ends on promises nothing that is not done yet, and a
// request that does not know the state ends nothing.
func TestAwaitCode(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	code := make(chan string, 1)
	go func() {
		c, err := awaitCode(t.Context(), l, "the-state")
		if err != nil {
			t.Error(err)
		}
		code <- c
	}()
	for _, tt := range []struct {
		query  string
		status int
		says   string
	}{{"code=stolen", 404, ""}, {"code=stolen&state=other", 404, ""}, {"code=right&state=the-state", 200, "the terminal says whether"}} {
		res, err := http.Get("http://" + l.Addr().String() + "/?" + tt.query)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != tt.status || !strings.Contains(string(body), tt.says) {
			t.Errorf("%s: %d %s", tt.query, res.StatusCode, body)
		}
	}
	if got := <-code; got != "right" {
		t.Errorf("got code %q", got)
	}
}
