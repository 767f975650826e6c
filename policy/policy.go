// Package policy decides who may have a token for what. Rules are written in
// Cedar, in the vocabulary of schema.cedarschema; what Cedar's conditions
// cannot say, such as which scopes a token may carry, is in annotations.
//
// Nothing is allowed that no rule permits; a rule that forbids wins over those
// that permit; and what cannot be evaluated is denied. A decision is a pure
// function of the rules, the request and the clock.
package policy

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/mandate-sam/mandate"
)

//go:embed schema.cedarschema
var schemaText string

// Schema returns the vocabulary of policy files, in Cedar's schema language.
func Schema() string { return schemaText }

// GroupsFile is the name of the file that says who is in which group.
const GroupsFile = "groups.yaml"

// Limits of what is read.
const (
	maxFile  = 1 << 20 // bytes
	maxFiles = 200
	maxTotal = 8 << 20
	maxRules = 10_000
	maxNodes = 5_000 // in one rule
	maxDepth = 64    // of brackets
)

// A File is one file of a policy.
type File struct {
	Name string `json:"name"` // without a directory
	Text string `json:"text"`
}

// A Source is a policy as written: its files, sorted by name.
type Source []File

// Read reads a policy: the *.cedar files of a directory with its groups.yaml,
// or a single file.
func Read(path string) (Source, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	if !info.IsDir() {
		f, err := readFile(path)
		if err == nil && !strings.HasSuffix(f.Name, ".cedar") {
			err = fmt.Errorf("read policy: %s is not named for a .cedar file", path)
		}
		return Source{f}, err
	}
	names, err := filepath.Glob(filepath.Join(strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path), "*.cedar"))
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("read policy: %s has no file whose name ends in .cedar", path)
	}
	if groups := filepath.Join(path, GroupsFile); exists(groups) {
		names = append(names, groups)
	}
	var s Source
	for _, name := range names {
		f, err := readFile(name)
		if err != nil {
			return nil, err
		}
		s = append(s, f)
	}
	return s, s.check()
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

func readFile(path string) (File, error) {
	f, err := os.Open(path)
	if err != nil {
		return File{}, fmt.Errorf("read policy: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return File{}, fmt.Errorf("read policy: %w", err)
	}
	if len(data) > maxFile {
		return File{}, fmt.Errorf("%s: longer than %d bytes", path, maxFile)
	}
	return File{filepath.Base(path), string(data)}, nil
}

// check sorts the files and reports the first that cannot be one.
func (s Source) check() error {
	slices.SortFunc(s, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	total := 0
	for i, f := range s {
		total += len(f.Text)
		switch {
		case f.Name != GroupsFile && !strings.HasSuffix(f.Name, ".cedar") || !mandate.Name(f.Name):
			return mandate.Invalid("files", "%.80q is neither %s nor named for a .cedar file", f.Name, GroupsFile)
		case i > 0 && s[i-1].Name == f.Name:
			return mandate.Invalid("files", "%s is there twice", f.Name)
		case len(f.Text) > maxFile:
			return mandate.Invalid("files", "%s is longer than %d bytes", f.Name, maxFile)
		}
	}
	if len(s) > maxFiles || total > maxTotal {
		return mandate.Invalid("files", "are more than %d, or longer than %d bytes", maxFiles, maxTotal)
	}
	return nil
}

// Version names a policy by its content, whatever else is in its directory.
func (s Source) Version() string {
	h := sha256.New()
	for _, f := range s {
		fmt.Fprintf(h, "%d %s %d %s\n", len(f.Name), f.Name, len(f.Text), f.Text)
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}

// The entity types of the schema.
const (
	typeCaller       types.EntityType = "Caller"
	typeCallerGroup  types.EntityType = "CallerGroup"
	typePartner      types.EntityType = "Partner"
	typePartnerGroup types.EntityType = "PartnerGroup"
	typeCustomer     types.EntityType = "Customer"
	typeAudience     types.EntityType = "Audience"
	typePurpose      types.EntityType = "Purpose"
	typePurposeGroup types.EntityType = "PurposeGroup"
	typeAction       types.EntityType = "Action"
	typeServer       types.EntityType = "Server"
)
