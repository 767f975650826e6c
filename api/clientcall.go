package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strconv"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

// A CallAnswer is what an API answered to a call, whatever its status.
type CallAnswer struct {
	Status int
	Header http.Header // those that a server passes on
	Body   []byte
	Rule   string          // by which the call was made
	Record mandate.Receipt // of the record that it was
}

// A CallError is an API's answer that is no success. It has what Microsoft's
// APIs say in words, if they do.
type CallError struct {
	Answer  *CallAnswer
	Code    string // the API's own, such as "900421" or "Authorization_RequestDenied"
	Message string
}

func (e *CallError) Error() string {
	s := fmt.Sprintf("the API answered %d %s", e.Answer.Status, http.StatusText(e.Answer.Status))
	if e.Code != "" {
		s += ": " + e.Code
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// Err returns nil for a success (2xx), or a [*CallError].
func (a *CallAnswer) Err() error {
	if a.Status/100 == 2 {
		return nil
	}
	e := &CallError{Answer: a}
	var doc struct {
		Code        json.RawMessage `json:"code"` // Partner Center; a string or a number
		Description string          `json:"description"`
		Error       struct {        // Graph, ARM
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	if json.Unmarshal(a.Body, &doc) != nil {
		return e
	}
	e.Code, e.Message = doc.Error.Code, doc.Error.Message
	if e.Code == "" && e.Message == "" {
		e.Message = doc.Description
		if json.Unmarshal(doc.Code, &e.Code) != nil {
			e.Code = string(doc.Code)
		}
	}
	return e
}

// Call lets the server make a call. The error is about the way to the API;
// what the API itself answered is in the answer, whatever its status.
func (c *Client) Call(ctx context.Context, in CallRequest) (*CallAnswer, error) {
	in.All = false
	resp, err := c.do(ctx, "POST", "/v1/call", in)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return readCallAnswer(resp)
}

// readCallAnswer tells an API's answer from the server's own.
func readCallAnswer(resp *http.Response) (*CallAnswer, error) {
	a, err := callHeader(resp)
	if err != nil {
		return nil, err
	}
	if a.Body, err = io.ReadAll(io.LimitReader(resp.Body, maxClientAnswer)); err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	return a, nil
}

func callHeader(resp *http.Response) (*CallAnswer, error) {
	upstream := resp.Header.Get(headerUpstream)
	if upstream == "" {
		return nil, problem(resp)
	}
	a := &CallAnswer{Header: resp.Header, Rule: resp.Header.Get(headerRule)}
	var err error
	if a.Status, err = strconv.Atoi(upstream); err != nil {
		return nil, fmt.Errorf("read answer: %s: %w", headerUpstream, err)
	}
	if _, err := fmt.Sscanf(resp.Header.Get(headerRecord), "%d %s", &a.Record.Index, &a.Record.Hash); err != nil {
		return nil, fmt.Errorf("read answer: %s: %w", headerRecord, err)
	}
	return a, nil
}

// CallAll lets the server make a call and follow its pages, and returns the
// items of all of them. If the list is not whole, the last pair has the error:
// a [*CallError] if the first page was no success.
func (c *Client) CallAll(ctx context.Context, in CallRequest) iter.Seq2[json.RawMessage, error] {
	in.All = true
	return func(yield func(json.RawMessage, error) bool) {
		resp, err := c.do(ctx, "POST", "/v1/call", in)
		if err != nil {
			yield(nil, err)
			return
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != ndjson {
			a, err := readCallAnswer(resp)
			if err == nil {
				err = a.Err()
			}
			yield(nil, err)
			return
		}
		if err := items(resp.Body, yield); err != nil {
			yield(nil, err)
		}
	}
}

// items yields the items of a list that is followed. It returns nil if the
// list was whole or the loop ended.
func items(r io.Reader, yield func(json.RawMessage, error) bool) error {
	var last error
	err := lines(r, func(line []byte) bool {
		var l struct {
			Item  json.RawMessage `json:"item"`
			End   *pageEnd        `json:"end"`
			Error json.RawMessage `json:"error"`
		}
		if last = json.Unmarshal(line, &l); last != nil {
			return false
		}
		switch {
		case l.Error != nil:
			last = web.ParseProblem(http.StatusBadGateway, line)
			return false
		case l.End != nil:
			return false
		}
		return yield(l.Item, nil)
	})
	return errors.Join(err, last)
}
