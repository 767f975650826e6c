package app

import (
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The grades of what a doctor says.
const (
	Good   = "good"
	Advice = "advice" // better would be something else
	Bad    = "bad"    // a promise does not hold as it is
)

// A Remark is what is to be said of one thing.
type Remark struct {
	Grade   string `json:"grade"`
	Subject string `json:"subject"`
	Message string `json:"message"`
}

// A Diagnosis says what a configuration protects from, and what it does not.
type Diagnosis struct {
	// Level says what a thief of the disk gets: 1 means everything, because
	// keys are in files beside the data; 2 means that the key which seals
	// grants, or the one by which the application proves itself, is elsewhere,
	// so that an image of the disk alone yields nothing.
	Level   int      `json:"level"`
	Remarks []Remark `json:"remarks"`
}

// Diagnose looks at a configuration and the files that it names, as
// [CheckFiles] does. It asks nobody, and changes nothing.
func Diagnose(c Config) Diagnosis {
	d := Diagnosis{Level: 1}
	d.keys(&c)
	d.credentials(&c)
	d.level()
	d.witnesses(&c)
	d.memory(&c)
	d.operators(&c)
	d.notices(&c)
	d.say(Advice, "roles", "portal, broker, gateway and operator socket are one process: whoever takes over the portal has what the broker has")
	for _, f := range CheckFiles(c) {
		if !f.OK {
			d.say(Bad, f.Subject, "%s", f.Message)
		}
	}
	return d
}

func (d *Diagnosis) say(grade, subject, format string, args ...any) {
	d.Remarks = append(d.Remarks, Remark{grade, subject, fmt.Sprintf(format, args...)})
}

// level comes first, and is about what was seen of the keys.
func (d *Diagnosis) level() {
	r := Remark{Good, "level", "2: a key that every grant needs is not on this disk, so that an image of the disk alone yields nothing; what runs here can still be used while it is taken over"}
	if d.Level == 1 {
		r = Remark{Advice, "level", "1: keys are beside the data, and whoever has the whole disk, or this user id, has the grants; a key in Key Vault, OpenBao or HashiCorp Vault changes that (docs/vaults.md)"}
	}
	d.Remarks = slices.Insert(d.Remarks, 0, r)
}

// keys looks at where the key that seals grants is.
func (d *Diagnosis) keys(c *Config) {
	k := c.current()
	switch {
	case k.File == "":
		d.Level = 2
		d.say(Good, "key", "%s", strings.TrimSuffix(k.String(), "; not tried"))
	case within(c.file(k.File), c.file(c.Data)):
		d.say(Advice, "key", "%s is in the data directory: one copy of that has both the grants and what opens them; put the key on another disk, and never into the same backup", c.file(k.File))
	default:
		d.say(Good, "key", "%s is outside of the data directory; keep it out of the backups of that", c.file(k.File))
	}
}

// notices looks at whether anybody hears of what they may not have wanted.
func (d *Diagnosis) notices(c *Config) {
	note, err := c.checkNoticeFiles()
	n := &c.Notices
	switch {
	case err != nil: // said with the other files
	case n.Mail == nil && n.Webhook == nil:
		d.say(Bad, "notices", "%s; a consent by another user, a withdrawal or broken glass is seen by whoever looks, and told to nobody (docs/notices.md)", note)
	case len(n.Operators) == 0 && n.Webhook == nil || n.Mail == nil:
		if n.Mail == nil {
			note = "only a webhook is told; the partners' contacts are told if whoever takes it passes that on (notices.mail)"
		}
		d.say(Advice, "notices", "%s", note)
	default:
		d.say(Good, "notices", "%s", note)
	}
}

// within reports whether a file is somewhere below a directory.
func within(file, dir string) bool {
	rel, err := filepath.Rel(dir, file)
	return err == nil && filepath.IsLocal(rel)
}

// credentials looks at by what applications prove themselves.
func (d *Diagnosis) credentials(c *Config) {
	away := len(c.Applications) > 0
	for i := range c.Applications {
		a := &c.Applications[i]
		cr, subject := &a.Credential, "application "+a.Name
		switch {
		case cr.Secret != "" && cr.SecretExpires == "":
			d.say(Advice, subject, "proves itself with a secret, which can be copied from a screen, and nobody here knows when it ends (secret_expires); a certificate is better, and a key that stays in Key Vault better still")
		case cr.Secret != "":
			d.say(Advice, subject, "proves itself with a secret, which can be copied from a screen; a certificate is better, and a key that stays in Key Vault better still")
		case cr.KeyVault != nil:
			d.say(Good, subject, "proves itself with a key that stays in Key Vault")
		case cr.Federated != nil:
			d.say(Good, subject, "proves itself with the token of another issuer; there is no key here")
		default:
			d.say(Good, subject, "proves itself with a certificate, whose key is a file here")
		}
		away = away && (cr.KeyVault != nil || cr.Federated != nil && cr.Federated.TokenFile == "")
	}
	if away {
		d.Level = 2
	}
}

// witnesses looks at who else has the checkpoints of the audit log.
func (d *Diagnosis) witnesses(c *Config) {
	if len(c.Audit.Witnesses) == 0 {
		d.say(Bad, "witnesses", "the audit log has none: whoever has this server can rewrite the log and sign it again, and nobody can show it (audit.witnesses, docs/audit.md)")
	}
	for i := range c.Audit.Witnesses {
		w := &c.Audit.Witnesses[i]
		cfg, err := w.witness(c)
		switch {
		case err != nil: // said with the other files
		case w.File != "" && within(c.file(w.File), c.file(c.Data)):
			d.say(Bad, "witness "+w.Name, "%s is in the data directory, where whoever changes the log can change it too", c.file(w.File))
		case w.File != "":
			d.say(Good, "witness "+w.Name, "appends to %s; that is worth something if it is on another machine's disk", c.file(w.File))
		case time.Duration(w.EverySeconds)*time.Second > 10*time.Minute:
			d.say(Advice, "witness "+w.Name, "gets a checkpoint every %v only: until then what is recorded could be left out again", time.Duration(w.EverySeconds)*time.Second)
		case nearby(cfg.URL) || nearby(cfg.Cosigner):
			d.say(Advice, "witness "+w.Name, "is on this machine, where whoever has the log may have it too")
		default:
			d.say(Good, "witness "+w.Name, "is another machine")
		}
	}
}

// nearby reports whether a URL does not leave this machine.
func nearby(s string) bool {
	u, err := url.Parse(s)
	if err != nil || s == "" {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() == "localhost" || err == nil && ip.IsLoopback()
}

// memory looks at what would notice that the database was set back.
func (d *Diagnosis) memory(c *Config) {
	m, err := c.remembered()
	switch {
	case err != nil:
		d.say(Bad, "epoch", "what is remembered outside of the database cannot be read: %v", err)
	case m.epoch == 0:
		d.say(Advice, "epoch", "nothing is remembered in %s yet: should the database be an older copy, this host would not know", c.epochFile())
	default:
		d.say(Good, "epoch", "%d is remembered outside of the database, in %s: an older copy of the database alone is refused", m.epoch, c.epochFile())
	}
}

// operators looks at who may loosen what.
func (d *Diagnosis) operators(c *Config) {
	if c.Operators.ClientID == "" {
		d.say(Advice, "operators", "do not sign in: whoever is one of the user ids of the operator socket does everything, and the record names an account of this host and not a person (operators.client_id)")
		return
	}
	d.say(Good, "operators", "sign in as persons")
}
