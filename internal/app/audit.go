package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/audit"
	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/internal/privatefile"
	"github.com/mandate-sam/mandate/vault"
)

// An Audit says who vouches for the audit log.
type Audit struct {
	// KeyFile signs the log's checkpoints. Empty means audit.key in Data,
	// which is made at the first start; replicas share one, which is made
	// beforehand: mandate audit key new.
	KeyFile Path `yaml:"key_file"`

	// Witnesses get every checkpoint. Without one, whoever has the server can
	// rewrite the log and sign it again.
	Witnesses []AuditWitness `yaml:"witnesses"`
}

// An AuditWitness is one of: a file, a URL, a cosigner.
type AuditWitness struct {
	Name string `yaml:"name"`
	File Path   `yaml:"file"`

	// URL takes a PUT of each checkpoint. Where its query is a signature, as
	// with Azure's, the whole URL is in URLFile instead.
	URL     string `yaml:"url"`
	URLFile Path   `yaml:"url_file"`

	Cosigner string `yaml:"cosigner"` // URL of "mandate witness", or another C2SP witness
	Key      string `yaml:"key"`      // its public key

	// EverySeconds is how far apart checkpoints are sent. Zero means as they
	// are made.
	EverySeconds int `yaml:"every_seconds"`
}

func (a *Audit) check() error {
	seen := make(map[string]bool)
	for i := range a.Witnesses {
		w := &a.Witnesses[i]
		if err := w.check(); err != nil {
			return at(fmt.Sprintf("audit.witnesses[%d]", i), err)
		}
		if seen[w.Name] {
			return mandate.Invalid("audit.witnesses", "%q is there twice", w.Name)
		}
		seen[w.Name] = true
	}
	return nil
}

func (w *AuditWitness) check() error {
	if !mandate.Name(w.Name) {
		return mandate.Invalid("name", "must be a short name of letters, digits, '-', '_' or '.'")
	}
	kinds := 0
	for _, set := range []string{string(w.File), w.URL, string(w.URLFile), w.Cosigner} {
		if set != "" {
			kinds++
		}
	}
	if kinds != 1 {
		return mandate.Invalid("file", "url, url_file or cosigner: exactly one of them says where the witness is")
	}
	for field, s := range map[string]string{"url": w.URL, "cosigner": w.Cosigner} {
		if s == "" {
			continue
		}
		u, err := url.Parse(s)
		if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Scheme != "https" && !loopback(u) {
			return mandate.Invalid(field, "must be https://host/path, without a query; one with a query goes into url_file")
		}
	}
	if w.Cosigner != "" {
		if _, err := audit.ParseWitnessKey(w.Key); err != nil {
			return mandate.Invalid("key", "%v", err)
		}
	}
	if w.EverySeconds < 0 || w.EverySeconds > 3600 {
		return mandate.Invalid("every_seconds", "must be from 0 to 3600")
	}
	return nil
}

// loopback reports whether the URL does not leave the host.
func loopback(u *url.URL) bool {
	return u.Scheme == "http" && (u.Hostname() == "127.0.0.1" || u.Hostname() == "::1" || u.Hostname() == "localhost")
}

// maxWitnessURL is the longest URL of a witness, in bytes.
const maxWitnessURL = 4 << 10

// witness returns what package audit wants.
func (w *AuditWitness) witness(c *Config) (audit.WitnessConfig, error) {
	out := audit.WitnessConfig{Name: w.Name, File: c.file(w.File), URL: w.URL, Cosigner: w.Cosigner, Every: time.Duration(w.EverySeconds) * time.Second}
	if w.Cosigner != "" {
		key, err := audit.ParseWitnessKey(w.Key)
		if err != nil {
			return out, err
		}
		out.Key = key
	}
	if w.URLFile != "" {
		path := c.file(w.URLFile)
		text, mode, err := privatefile.Read(path, maxWitnessURL)
		if err == nil {
			err = privatefile.Private(path, mode)
		}
		if err != nil {
			return out, fmt.Errorf("audit witness %s: %w", w.Name, err)
		}
		out.URL = strings.TrimSpace(string(text))
		if u, err := url.Parse(out.URL); err != nil || u.Host == "" || u.Scheme != "https" && !loopback(u) {
			return out, fmt.Errorf("audit witness %s: %s does not hold an https URL", w.Name, path)
		}
	}
	return out, nil
}

// openAudit opens the log: in files for a server that is alone, in PostgreSQL
// for replicas.
func (a *App) openAudit(ctx context.Context, c *Config, emulated bool, key vault.KeyWrapper) error {
	data := c.file(c.Data)
	if _, err := os.Stat(filepath.Join(data, "audit.jsonl")); err == nil {
		return fmt.Errorf("%s is an audit log of an earlier version, whose records prove nothing: keep it somewhere safe, outside of %s, and start again; a new log begins then",
			filepath.Join(data, "audit.jsonl"), data)
	}
	cfg := audit.Config{DB: a.db, Keys: key, Epoch: epoch{a.db}, Memory: filepath.Join(data, "audit.checkpoint"), Erasures: filepath.Join(data, "audit.erased"), Emulated: emulated, Log: a.log}
	var err error
	if cfg.Signer, cfg.Public, err = c.auditKey(); err != nil {
		return err
	}
	for i := range c.Audit.Witnesses {
		w, err := c.Audit.Witnesses[i].witness(c)
		if err != nil {
			return err
		}
		cfg.Witnesses = append(cfg.Witnesses, w)
	}
	if c.Database.URL == "" {
		cfg.Dir = filepath.Join(data, "audit")
		if a.auditIndex, err = openAuditIndex(ctx, filepath.Join(data, "audit-index.db")); err != nil {
			return fmt.Errorf("%w; if that file is damaged, take it away: it is made anew", err)
		}
		cfg.Index = a.auditIndex
	}
	if a.audit, err = audit.Open(ctx, cfg); err != nil {
		return err
	}
	if len(cfg.Witnesses) == 0 {
		a.log.Warn("the audit log has no witness: whoever has this server can rewrite it unnoticed; see audit in the configuration")
	}
	return nil
}

func openAuditIndex(ctx context.Context, file string) (*database.DB, error) {
	return database.Open(ctx, database.Config{File: file, Derived: true, Schemas: []database.Schema{audit.Schema()}})
}

func (c *Config) auditKeyFile() string {
	return c.file(cmp.Or(c.Audit.KeyFile, Path(filepath.Join(c.file(c.Data), "audit.key"))))
}

// checkAuditKey reads the key that signs checkpoints, as a server would, and
// makes none.
func (c *Config) checkAuditKey() (note string, err error) {
	path := c.auditKeyFile()
	if note, err = presence(path); err != nil || note != "" && c.Database.URL == "" {
		return path + note, err
	}
	_, public, err := c.auditKey()
	if err != nil {
		return "", err
	}
	return path + ", of " + public.Name(), nil
}

// auditKey reads the key that signs checkpoints. A server that is alone makes
// it at the first start; of replicas each would make its own.
func (c *Config) auditKey() (audit.Signer, audit.Verifier, error) {
	path := c.auditKeyFile()
	_, err := os.Stat(path)
	switch {
	case !errors.Is(err, fs.ErrNotExist):
	case c.Database.URL != "":
		return nil, nil, fmt.Errorf("the key file %s is missing: replicas share one key that signs the audit log's checkpoints, so make it once (mandate audit key new %s --origin NAME), give every replica a copy, and name it in audit.key_file", path, path)
	default:
		u, err := url.Parse(c.Portal.PublicURL)
		if err != nil {
			return nil, nil, mandate.Invalid("portal.public_url", "is not a URL")
		}
		if err := audit.WriteKey(path, u.Hostname()+"/audit"); err != nil {
			return nil, nil, err
		}
	}
	return audit.ReadKey(path)
}

// witnessesBehind returns how many records each witness has not seen.
func (a *App) witnessesBehind() map[string]int64 {
	out := make(map[string]int64)
	for _, w := range a.audit.Witnesses() {
		out[w.Name] = w.Behind
	}
	return out
}
