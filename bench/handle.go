package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
)

// handleCase is G2: a token that a client holds.
var handleCase = benchCase{
	rows: []string{"G2/handle", "G2/handle-allocs"},
	run:  runHandle,
}

func runHandle(ctx context.Context, e *env) ([]row, error) {
	h, err := newHandle()
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	defer func() { stop(); <-ended }()
	if _, err := h.Token(ctx); err != nil {
		return nil, err
	}
	source := oauth2.ReuseTokenSource(nil, freshToken{})
	const each = 200_000
	v, err := e.interleave(ctx, "G2", choose(e, 31, 15),
		func(ctx context.Context) (float64, error) {
			return nanoseconds(each, func() error { _, err := h.Token(ctx); return err })
		},
		func(context.Context) (float64, error) {
			return nanoseconds(each, func() error { _, err := source.Token(); return err })
		})
	if err != nil {
		return nil, err
	}
	allocs := testing.AllocsPerRun(1000, func() { _, err = h.Token(ctx) })
	return []row{
		compare("G2/handle", "ns", v[0], v[1]).judge(&target{"ratio", "<=", 0.75}, "a held token costs more than it should"),
		row{Name: "G2/handle-allocs", Value: number(allocs), Unit: "allocs", Floor: none, Ratio: none}.judge(
			&target{"value", "=", 0}, "a held token allocates"),
	}, err
}

// nanoseconds returns how long one of n calls of f takes.
func nanoseconds(n int, f func() error) (float64, error) {
	start := time.Now()
	for range n {
		if err := f(); err != nil {
			return 0, err
		}
	}
	return float64(time.Since(start)) / float64(n), nil
}

// newHandle returns a handle whose server answers in memory.
func newHandle() (*api.Handle, error) {
	c, err := api.NewClient("https://mandate.example.test", &http.Client{Transport: oneAnswer{}}, "billing", mandate.NewSecret("secret"))
	if err != nil {
		return nil, err
	}
	return c.Handle(api.TokenRequest{Partner: "p0", Audience: mandate.Graph, Purpose: "invoice"}), nil
}

// oneAnswer answers every request with a token.
type oneAnswer struct{}

// RoundTrip implements [http.RoundTripper].
func (oneAnswer) RoundTrip(*http.Request) (*http.Response, error) {
	body, err := json.Marshal(map[string]any{"access_token": strings.Repeat("a", tokenSize), "token_type": "Bearer", "expires_in": 3600})
	return &http.Response{StatusCode: http.StatusOK, Header: make(http.Header), Body: io.NopCloser(bytes.NewReader(body))}, err
}

// freshToken is what stands behind the floor.
type freshToken struct{}

// Token implements [oauth2.TokenSource].
func (freshToken) Token() (*oauth2.Token, error) {
	return &oauth2.Token{AccessToken: strings.Repeat("a", tokenSize), Expiry: time.Now().Add(time.Hour)}, nil
}
