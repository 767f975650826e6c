package api

import "strings"

// quickRequest decodes the body of a token request as nearly every client
// writes it: an object of known fields, each once, whose values are strings of
// printable ASCII without escapes, and no space between. It returns false for
// all else, valid or not, and leaves that to encoding/json: this is on the way
// of every token, and encoding/json goes through such a body three times.
func quickRequest(body []byte) (in TokenRequest, ok bool) {
	rest := strings.TrimSuffix(string(body), "\n") // one copy, of which the fields are parts
	if len(rest) < 2 || rest[0] != '{' {
		return TokenRequest{}, false
	}
	for sep := byte('{'); ; sep = ',' {
		if len(rest) < 2 || rest[0] != sep {
			return TokenRequest{}, false
		}
		name, after, good := quickString(rest[1:])
		if !good || len(after) == 0 || after[0] != ':' {
			return TokenRequest{}, false
		}
		value, after, good := quickString(after[1:])
		// A field that has a value is given twice; so may one be whose value is
		// empty, which is rare enough to leave.
		field := quickField(&in, name)
		if !good || field == nil || *field != "" || len(value) == 0 {
			return TokenRequest{}, false
		}
		*field, rest = value, after
		if len(rest) == 1 && rest[0] == '}' {
			return in, true
		}
	}
}

// quickField returns where the value of a field goes, or nil.
func quickField(in *TokenRequest, name string) *string {
	switch name {
	case "partner":
		return &in.Partner
	case "tenant":
		return &in.Tenant
	case "audience":
		return &in.Audience
	case "purpose":
		return &in.Purpose
	case "ticket":
		return &in.Ticket
	}
	return nil
}

// quickString takes a string that means itself off the beginning of text.
func quickString(text string) (s, rest string, ok bool) {
	if len(text) == 0 || text[0] != '"' {
		return "", "", false
	}
	for i := 1; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			return text[1:i], text[i+1:], true
		case c < 0x20 || c > 0x7e || c == '\\':
			return "", "", false
		}
	}
	return "", "", false
}
