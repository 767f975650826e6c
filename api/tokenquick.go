package api

import "bytes"

// quickRequest decodes the body of a token request as nearly every client
// writes it: an object of known fields, each once, whose values are strings of
// printable ASCII without escapes, and no space between. It returns false for
// all else, valid or not, and leaves that to encoding/json: this is on the way
// of every token, and encoding/json goes through such a body three times.
func quickRequest(body []byte) (in TokenRequest, ok bool) {
	rest := bytes.TrimSuffix(body, []byte("\n"))
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
		*field, rest = string(value), after
		if len(rest) == 1 && rest[0] == '}' {
			return in, true
		}
	}
}

// quickField returns where the value of a field goes, or nil.
func quickField(in *TokenRequest, name []byte) *string {
	switch string(name) {
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

// quickString takes a string that means itself off the beginning of b.
func quickString(b []byte) (s, rest []byte, ok bool) {
	if len(b) == 0 || b[0] != '"' {
		return nil, nil, false
	}
	for i, c := range b[1:] {
		switch {
		case c == '"':
			return b[1 : i+1], b[i+2:], true
		case c < 0x20 || c > 0x7e || c == '\\':
			return nil, nil, false
		}
	}
	return nil, nil, false
}
