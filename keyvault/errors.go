package keyvault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/upstream"
)

// An Error is why an operation failed, and whose move it is. It wraps
// [mandate.ErrUnavailable] if trying again later is right, and
// [mandate.ErrNotFound] if the object is not there.
type Error struct {
	Did       string // "wrap a data key with key mandate in x.vault.azure.net"
	Status    int    // 0 if there was no answer
	Code      string // Azure's, such as "Forbidden"; or Entra's, such as "invalid_client"
	Inner     string // the more precise one, such as "SecretDisabled"
	Message   string // Azure's own words
	Advice    string // what to do, and for whom to do it
	RequestID string // Microsoft's, for a support request
	Cause     error  // if there was no answer
}

// Error is one sentence, or two.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Did)
	if e.Status != 0 {
		fmt.Fprintf(&b, ": %d %s", e.Status, e.Code)
	}
	if e.Inner != "" {
		b.WriteString("/" + e.Inner)
	}
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	if e.Cause != nil {
		fmt.Fprintf(&b, ": %v", e.Cause)
	}
	if e.Advice != "" {
		b.WriteString("; " + e.Advice)
	}
	if e.RequestID != "" {
		fmt.Fprintf(&b, " (request id %s)", e.RequestID)
	}
	return b.String()
}

// Unwrap lets errors.Is find the sentinel and the cause.
func (e *Error) Unwrap() []error {
	var errs []error
	switch {
	case e.Temporary():
		errs = append(errs, mandate.ErrUnavailable)
	case e.Status == http.StatusNotFound:
		errs = append(errs, mandate.ErrNotFound)
	}
	if e.Cause != nil {
		errs = append(errs, e.Cause)
	}
	return errs
}

// Temporary reports whether the same may work later without anybody's help. A
// caller that gave up says nothing about the vault.
func (e *Error) Temporary() bool {
	switch {
	case e.Cause != nil:
		return !errors.Is(e.Cause, context.Canceled) && !errors.As(e.Cause, new(signInRefused))
	case e.Status == http.StatusTooManyRequests, e.Status == http.StatusRequestTimeout:
		return true
	}
	return e.Status >= 500
}

// describe makes an [*Error] of what the SDK says. The SDK's own text repeats
// whole answers, so nothing of it is kept but what is understood.
func (v *Vault) describe(o operation, err error) error {
	e := &Error{Did: fmt.Sprintf("%s %s in %s", o.verb, o.object, v.name)}
	if r, ok := errors.AsType[*azcore.ResponseError](err); ok {
		e.read(r)
		e.Advice = v.advice(o, e)
		return e
	}
	e.Cause = signInError(err)
	switch text := err.Error(); {
	case strings.Contains(text, "AdditionallyAllowedTenants"):
		e.Cause = signInRefused{errors.New("the vault belongs to another tenant than " + v.identity)}
		e.Advice = "the operator gives the identity of the vault's own tenant"
	case strings.Contains(text, "doesn't match the requested domain"):
		e.Cause = signInRefused{errors.New("the vault asks for a token for something that is not a vault of its cloud; none was sent")}
	}
	return e
}

// read takes what an answer of Key Vault says.
func (e *Error) read(r *azcore.ResponseError) {
	e.Status, e.Code = r.StatusCode, upstream.Clean(r.ErrorCode, 60)
	if r.RawResponse == nil {
		return
	}
	e.RequestID = upstream.Clean(r.RawResponse.Header.Get("x-ms-request-id"), 60)
	body, err := runtime.Payload(r.RawResponse)
	var answer struct {
		Error struct {
			Message string `json:"message"`
			Inner   struct {
				Code string `json:"code"`
			} `json:"innererror"`
		} `json:"error"`
	}
	if err != nil || json.Unmarshal(body, &answer) != nil {
		return
	}
	e.Message, e.Inner = upstream.Clean(answer.Error.Message, 300), upstream.Clean(answer.Error.Inner.Code, 60)
}

// advice says whose move it is.
func (v *Vault) advice(o operation, e *Error) string {
	switch {
	case e.Temporary():
		return "it is tried again later"
	case strings.HasSuffix(e.Inner, "Disabled"):
		return "whoever disabled it in the vault must enable it again"
	case strings.Contains(e.Inner, "Firewall") || strings.HasPrefix(e.Message, "Client address"):
		return "the vault's administrator must admit this host in the vault's network rules"
	case e.Status == http.StatusForbidden:
		return fmt.Sprintf("the vault's administrator must give %s the permission %q", v.identity, o.permission)
	case e.Status == http.StatusUnauthorized:
		return fmt.Sprintf("the vault does not know %s: the operator gives the identity of the vault's own tenant", v.identity)
	case e.Status == http.StatusNotFound:
		return "if it was deleted, the vault's administrator can recover it for as long as the vault keeps what is deleted"
	}
	return ""
}

// signInRefused is a refusal by Entra, or by the machine's identity endpoint,
// that will not pass by waiting.
type signInRefused struct{ error }

// signInError returns err, and in place of one about signing in what Entra
// said in its answer: the SDK's text has the whole of it.
func signInError(err error) error {
	failed, ok := errors.AsType[*azidentity.AuthenticationFailedError](err)
	if !ok {
		return upstream.WithoutURL(err)
	}
	if failed.RawResponse == nil {
		return fmt.Errorf("sign in: %s", upstream.Clean(failed.Error(), 300))
	}
	body, _ := runtime.Payload(failed.RawResponse)
	var answer struct {
		Error         string `json:"error"`
		Description   string `json:"error_description"`
		CorrelationID string `json:"correlation_id"`
	}
	_ = json.Unmarshal(body, &answer)
	text, _, _ := strings.Cut(answer.Description, " Trace ID:")
	described := fmt.Errorf("sign in: %d %s: %s (correlation id %s)", failed.RawResponse.StatusCode,
		upstream.Clean(answer.Error, 60), upstream.Clean(text, 300), upstream.Clean(answer.CorrelationID, 60))
	if failed.RawResponse.StatusCode >= 500 || failed.RawResponse.StatusCode == http.StatusTooManyRequests {
		return described
	}
	return signInRefused{described}
}
