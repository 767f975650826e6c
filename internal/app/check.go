package app

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/privatefile"
	"github.com/mandate-sam/mandate/policy"
)

// A Finding is something that an operator should know about a configuration.
type Finding struct {
	OK      bool   `json:"ok"`
	Subject string `json:"subject"` // what was looked at
	Message string `json:"message"`
}

// CheckFiles reads the files that the configuration names, as a server would
// at its start, and reports what it found about each. It makes and changes
// nothing.
func CheckFiles(c Config) []Finding {
	var out []Finding
	add := func(subject string, err error, good string, args ...any) {
		f := Finding{err == nil, subject, fmt.Sprintf(good, args...)}
		if err != nil {
			f.Message = err.Error()
		}
		out = append(out, f)
	}
	clouds, err := c.clouds()
	add("configuration", err, "portal at %s, %d application(s)", c.Portal.PublicURL, len(c.Applications))
	if err != nil {
		return out
	}
	note, err := checkPolicy(c.file(c.Policy), c.usedClouds(clouds))
	add("policy", err, "%s", note)
	o := newOutside(&c, clouds, slog.New(slog.DiscardHandler))
	for i := range c.Applications {
		a := &c.Applications[i]
		cloud := clouds[a.cloud()]
		note, err := o.describe(context.Background(), &a.Credential, cloud.Name)
		add("application "+a.Name, err, "%s; redirect URI %s", note, redirectURI(c.Portal.PublicURL, cloud.Name))
		_, err = c.httpClient(cloud)
		add("cloud "+cloud.Name, err, "%s", cloud.Authority)
	}
	for i := range c.Identities {
		_, err := c.load(&c.Identities[i])
		add("identity "+c.Identities[i].Name, err, "for key vaults; not tried")
	}
	for _, l := range []struct {
		name string
		*Listener
	}{{"portal", &c.Portal.Listener}, {"api", &c.API.Listener}, {"metrics", &c.Metrics}} {
		if l.TLS.Certificate != "" {
			add(l.name+" tls", c.checkTLS(&l.TLS), "%s", c.file(l.TLS.Certificate))
		}
	}
	note, err = c.checkNoticeFiles()
	add("notices", err, "%s", note)
	note, err = c.checkAuditKey()
	add("audit key", err, "%s", note)
	for i := range c.Audit.Witnesses {
		w := &c.Audit.Witnesses[i]
		_, err := w.witness(&c)
		add("witness "+w.Name, err, "of the audit log; not asked")
	}
	keys := c.keys()
	for _, path := range slices.Sorted(maps.Keys(keys)) {
		k := keys[path]
		if k.File == "" || path != "key" { // the current key file may not be there yet
			_, err := o.wrapper(k)
			add(path, err, "%s", k)
		}
	}
	homes, err := o.homes()
	for _, name := range slices.Sorted(maps.Keys(homes)) {
		add("grants", nil, "in %s; not asked for", name)
	}
	if err != nil {
		add("grants", err, "")
	}
	if path := c.keyFile(); path != "" {
		note, err := presence(path)
		if note != "" {
			err = c.mayMakeKey(path)
		}
		add("key file", err, "%s%s", path, note)
	}
	note, err = presence(c.file(c.Data))
	add("data", err, "%s%s", c.file(c.Data), note)
	return out
}

// checkTLS loads a pair as a listener would. Its key is for the server, and
// perhaps its group: who has it can pose as the server.
func (c *Config) checkTLS(t *TLS) error {
	key := c.file(t.Key)
	if _, err := (&certificate{cert: c.file(t.Certificate), key: key}).get(nil); err != nil {
		return err
	}
	info, err := os.Stat(key)
	if err != nil {
		return err
	}
	return privatefile.Guarded(key, info.Mode())
}

// presence says of a path that it is there, or that a server would make it.
func presence(path string) (note string, err error) {
	if _, err = os.Stat(path); os.IsNotExist(err) {
		return " (not there yet; the server makes it)", nil
	}
	return "", err
}

// checkPolicy compiles a policy.
func checkPolicy(path string, clouds []mandate.Cloud) (note string, err error) {
	src, err := policy.Read(path)
	if err != nil {
		return "", err
	}
	set, err := policy.Compile(src, clouds)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d rule(s), version %s; what is in force is the server's: see mandate policy show", set.Len(), set.Version()), nil
}
