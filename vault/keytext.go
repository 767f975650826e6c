package vault

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// The text of a key file:
//
//	mandate-keys 1
//	# any comment
//	key ID base64-of-32-bytes checksum
//	end
//
// The first key is the one that wraps; any others open what was wrapped before
// it came. The last line shows that none was cut off.
const (
	keysHeader = "mandate-keys 1"
	keysEnd    = "end"
	keysHint   = "# Whoever has this file and the database has every refresh token in it.\n" +
		"# Without it none of them opens. Keep a copy where no copy of the database is.\n"
	maxKeyFile = 64 << 10
	maxKeyID   = 64
	keySize    = 32
)

type fileKey struct {
	id    string
	bytes []byte
}

func newKey() fileKey {
	k := fileKey{"k" + strings.ToLower(rand.Text()[:12]), make([]byte, keySize)}
	rand.Read(k.bytes)
	return k
}

// keyText returns the text of a file with those keys.
func keyText(keys []fileKey) []byte {
	b := []byte(keysHeader + "\n" + keysHint)
	for _, k := range keys {
		b = fmt.Appendf(b, "key %s %s %s\n", k.id, base64.StdEncoding.EncodeToString(k.bytes), k.checksum())
	}
	return append(b, keysEnd+"\n"...)
}

// checksum tells a mistyped or damaged key from another one.
func (k fileKey) checksum() string {
	sum := sha256.Sum256(append([]byte(keysHeader+"\n"+k.id+"\n"), k.bytes...))
	return hex.EncodeToString(sum[:4])
}

var errKeysCut = errors.New("is cut short: its last line is not \"end\"; restore it from its backup")

// parseKeys returns the keys in the text of a key file, at least one. Its
// errors say nothing of the keys.
func parseKeys(text []byte) ([]fileKey, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, errors.New("is empty; restore it from its backup, or, if no grant was ever stored, remove it")
	}
	if len(text) > maxKeyFile {
		return nil, fmt.Errorf("is longer than %d bytes", maxKeyFile)
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if lines[0] != keysHeader {
		return nil, fmt.Errorf("is not a key file: its first line is not %q", keysHeader)
	}
	if lines[len(lines)-1] != keysEnd {
		return nil, errKeysCut
	}
	var keys []fileKey
	seen := make(map[string]bool)
	for i, line := range lines[1 : len(lines)-1] {
		if line == "" || line[0] == '#' {
			continue
		}
		k, err := parseKey(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+2, err)
		}
		if seen[k.id] {
			return nil, fmt.Errorf("line %d: key %q is there twice", i+2, k.id)
		}
		seen[k.id] = true
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errors.New("has no key in it")
	}
	return keys, nil
}

func parseKey(line string) (fileKey, error) {
	f := strings.Split(line, " ")
	if len(f) != 4 || f[0] != "key" {
		return fileKey{}, errors.New("is not of the form: key ID BASE64 CHECKSUM")
	}
	if !keyName(f[1]) {
		return fileKey{}, fmt.Errorf("a key's ID has at most %d letters, digits and '-'", maxKeyID)
	}
	key, err := base64.StdEncoding.Strict().DecodeString(f[2])
	if err != nil || len(key) != keySize {
		return fileKey{}, fmt.Errorf("key %q is not %d bytes in base64; restore the file from its backup", f[1], keySize)
	}
	k := fileKey{f[1], key}
	if k.checksum() != f[3] {
		return fileKey{}, fmt.Errorf("the checksum of key %q is wrong: the key was altered; restore the file from its backup", f[1])
	}
	return k, nil
}

func keyName(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return len(s) > 0 && len(s) <= maxKeyID
}
