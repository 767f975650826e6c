package api

import (
	"net/http"
	"strconv"
	"sync"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/jsontext"
	"github.com/mandate-sam/mandate/internal/web"
)

// A tokenAnswer is the answer, as it goes over the wire.
type tokenAnswer struct {
	AccessToken string           `json:"access_token"` // of characters that need no escaping: package entra takes no others
	TokenType   string           `json:"token_type"`
	ExpiresIn   int64            `json:"expires_in"`
	Tenant      mandate.TenantID `json:"tenant"`
	Audience    mandate.Audience `json:"audience"`
	Scopes      []mandate.Scope  `json:"scopes"` // [] if there are none
	Generation  int64            `json:"generation"`
	Decision    string           `json:"decision"` // the rule's name
	Record      mandate.Receipt  `json:"record"`
}

// appendTo appends a as encoding/json writes it, but by hand: it is the longest
// thing that is written for a token. A test holds one against the other.
func (a *tokenAnswer) appendTo(b []byte) []byte {
	b = append(b, `{"access_token":"`...)
	b = append(b, a.AccessToken...)
	b = append(b, `","token_type":`...)
	b = jsontext.AppendString(b, a.TokenType)
	b = append(b, `,"expires_in":`...)
	b = strconv.AppendInt(b, a.ExpiresIn, 10)
	b = append(b, `,"tenant":"`...)
	b, _ = a.Tenant.AppendText(b) // an ID has no error, and nothing to escape
	b = append(b, `","audience":`...)
	b = jsontext.AppendString(b, string(a.Audience))
	b = append(b, `,"scopes":[`...)
	for i, s := range a.Scopes {
		if i > 0 {
			b = append(b, ',')
		}
		b = jsontext.AppendString(b, s)
	}
	b = append(b, `],"generation":`...)
	b = strconv.AppendInt(b, a.Generation, 10)
	b = append(b, `,"decision":`...)
	b = jsontext.AppendString(b, a.Decision)
	b = append(b, `,"record":{"index":`...)
	b = strconv.AppendInt(b, a.Record.Index, 10)
	b = append(b, `,"hash":`...)
	b = jsontext.AppendString(b, a.Record.Hash)
	return append(b, '}', '}', '\n')
}

// answers has memory for answers that are being written. It held tokens, as
// the memory of connections does.
var answers = sync.Pool{New: func() any { return new([]byte) }}

// write answers with a, unless check fails when it is about to be sent.
func (a *tokenAnswer) write(w http.ResponseWriter, r *http.Request, check func() error) error {
	b := answers.Get().(*[]byte)
	defer answers.Put(b)
	*b = a.appendTo((*b)[:0])
	return web.WriteHeld(w, r, http.StatusOK, *b, check)
}
