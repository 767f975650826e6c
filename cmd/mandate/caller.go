package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
)

func (c *cli) callerCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "caller",
		Short: "Register the workloads that may ask for tokens",
		Long: `Caller has commands about the workloads that authenticate to the API, and about
what they show to prove who they are: a secret that the server makes, assertions
signed with a key of theirs, tokens of an issuer such as a cluster or GitHub, or a
client certificate. What one may have is for the policy to say; a new caller may
have nothing.`,
		Example: "  mandate caller add billing\n  mandate caller add deploy --issuer github --claim repository_id=1234\n  mandate caller list",
	})
	cmd.AddCommand(c.callerAddCommand(), c.callerListCommand(), c.callerShowCommand(), c.callerRotateCommand(),
		c.callerExpireCommand(), c.callerAdoptCommand(), c.callerRemoveCommand())
	return cmd
}

// shows are the flags that say what a caller shows.
type shows struct {
	keys, certificate, expires string
	claims                     []string
	show                       api.Show
}

func (s *shows) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.keys, "keys", "", "file with public keys that it signs assertions with: JSON Web Keys or PEM")
	f.StringVar(&s.show.Issuer, "issuer", "", "name of a configured issuer whose tokens stand for it")
	f.StringArrayVar(&s.claims, "claim", nil, "claim that those tokens must have, as NAME=VALUE; can be given often")
	f.StringVar(&s.certificate, "certificate", "", "file with its client certificate in PEM form, or the SHA-256 of one")
	f.StringVar(&s.show.SPIFFE, "spiffe", "", "SPIFFE ID of its client certificates")
	f.StringVar(&s.expires, "expires", "", "how long what it shows is good, such as 90d (default: for ever)")
}

// read reads the files that the flags name.
func (s *shows) read() (_ api.Show, err error) {
	if s.keys != "" {
		if s.show.Keys, err = readText("keys", s.keys); err != nil {
			return s.show, err
		}
	}
	s.show.Certificate = s.certificate
	if _, err := os.Stat(s.certificate); s.certificate != "" && err == nil {
		if s.show.Certificate, err = readText("certificate", s.certificate); err != nil {
			return s.show, err
		}
	}
	for _, claim := range s.claims {
		name, value, ok := strings.Cut(claim, "=")
		if !ok || name == "" {
			return s.show, usage("--claim: write it as NAME=VALUE")
		}
		if s.show.Claims == nil {
			s.show.Claims = make(map[string]string)
		}
		s.show.Claims[name] = value
	}
	if s.expires != "" {
		s.show.Expires, err = seconds("expires", s.expires)
	}
	return s.show, err
}

// readText reads a small file.
func readText(flag, path string) (string, error) {
	data, err := os.ReadFile(path)
	if err == nil && len(data) > 64<<10 {
		err = fmt.Errorf("is longer than 64 KiB")
	}
	if err != nil {
		return "", usage("--%s: %v", flag, err)
	}
	return string(data), nil
}

func (c *cli) callerAddCommand() *cobra.Command {
	var s shows
	var partner, customer, purpose string
	var audiences []string
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Register a workload and print its secret once, if it has one",
		Long: `Add registers a workload. Unless a flag says that it shows something else, it gets
a secret, which is printed. The server keeps a hash of it, so it cannot be shown
again: send it straight to where it is to be kept.

With --bind-… the caller's requests take from its registration what they do not say
themselves, and can never say anything else. It is for protocols that have no field
for it.`,
		Example: `  mandate caller add billing > /run/secrets/mandate-billing
  mandate caller add deploy --issuer github --claim repository_id=1234 --claim environment=production
  mandate caller add nightly --keys nightly.pub.pem --bind-partner contoso --bind-purpose report`,
		Args: words("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			show, err := s.read()
			if err != nil {
				return err
			}
			in := api.CallerRequest{ID: args[0], Show: show}
			if partner+customer+purpose != "" || len(audiences) > 0 {
				in.Binding = &mandate.Binding{Partner: partner, Purpose: purpose}
				for _, a := range audiences {
					in.Binding.Audiences = append(in.Binding.Audiences, mandate.Audience(a))
				}
				if customer != "" {
					if in.Binding.Customer, err = mandate.ParseTenantID(customer); err != nil {
						return err
					}
				}
			}
			return c.registered(cmd.Context(), func(ctx context.Context, client *api.Client) (api.CallerAnswer, error) {
				return client.RegisterCaller(ctx, in)
			}, "Added caller %s.")
		},
	}
	s.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&partner, "bind-partner", "", "the only partner that it asks for")
	f.StringVar(&customer, "bind-customer", "", "the only tenant that it asks for, as a tenant id")
	f.StringSliceVar(&audiences, "bind-audience", nil, "the only APIs that it asks for")
	f.StringVar(&purpose, "bind-purpose", "", "the only purpose that it asks for")
	return cmd
}

// registered registers something and prints what came of it: a secret alone to
// standard output.
func (c *cli) registered(ctx context.Context, do func(context.Context, *api.Client) (api.CallerAnswer, error), note string) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	a, err := do(ctx, client)
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(a)
	}
	if note = fmt.Sprintf(note, a.ID); a.Secret == "" {
		c.note("%s It shows: %s", note, strings.Join(credentialWords(a.Credentials), "; "))
		return nil
	}
	c.note("%s This is its secret, which is not shown again:", note)
	_, err = fmt.Fprintln(c.out, a.Secret)
	return err
}

func credentialWords(all []mandate.CallerCredential) []string {
	var out []string
	for i := range all {
		out = append(out, all[i].Kind+" "+all[i].ID+credentialDetail(&all[i]))
	}
	return out
}

// credentialDetail says of a credential what differs from kind to kind.
func credentialDetail(c *mandate.CallerCredential) string {
	switch c.Kind {
	case mandate.CredentialWorkload:
		var pins []string
		for name, value := range c.Claims {
			pins = append(pins, name+"="+value)
		}
		slices.Sort(pins)
		return " of " + c.Issuer + " with " + strings.Join(pins, ", ")
	case mandate.CredentialCertificate:
		return " SHA-256 " + c.Certificate
	case mandate.CredentialSPIFFE:
		return " " + c.SPIFFE
	}
	return ""
}

func (c *cli) callerListCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the registered workloads",
		Long:    `List shows every registered workload. Secrets are not kept, and not shown.`,
		Example: "  mandate caller list",
		Args:    words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			all, err := client.Callers(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(map[string]any{"callers": all})
			}
			rows := make([][]cell, 0, len(all))
			for _, caller := range all {
				var kinds []string
				for i := range caller.Credentials {
					if caller.Credentials[i].Valid(time.Now()) {
						kinds = append(kinds, caller.Credentials[i].Kind)
					}
				}
				rows = append(rows, plain(string(caller.ID), day(caller.Created), strings.Join(kinds, " ")))
			}
			return table(c.out, []string{"NAME", "ADDED", "SHOWS"}, rows)
		},
	}
}

func (c *cli) callerShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "show NAME",
		Short:             "Show a registered workload and what it can show",
		Long:              `Show tells what a caller can show to prove who it is, and what its registration binds.`,
		Example:           "  mandate caller show billing",
		Args:              words("NAME"),
		ValidArgsFunction: c.complete(0, callerNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			caller, err := client.Caller(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(caller)
			}
			return c.printCaller(&caller)
		},
	}
}

func (c *cli) printCaller(caller *mandate.Caller) error {
	b := &caller.Binding
	var audiences []string
	for _, a := range b.Audiences {
		audiences = append(audiences, string(a))
	}
	for _, fact := range [][2]string{
		{"owner", caller.Owner}, {"partner", b.Partner}, {"customer", b.Customer.String()}, {"audiences", strings.Join(audiences, " ")}, {"purpose", b.Purpose},
	} {
		if fact[1] == "" {
			continue
		}
		if _, err := fmt.Fprintf(c.out, "%-9s  %s\n", fact[0], clean(fact[1])); err != nil {
			return err
		}
	}
	rows := make([][]cell, 0, len(caller.Credentials))
	for i := range caller.Credentials {
		k := &caller.Credentials[i]
		ends := cell{text: day(k.Expires)}
		if !k.Valid(time.Now()) {
			ends.paint = red
		}
		rows = append(rows, []cell{{text: k.ID}, {text: k.Kind}, {text: day(k.Created)}, ends, {text: strings.TrimSpace(credentialDetail(k))}})
	}
	return table(c.out, []string{"CREDENTIAL", "KIND", "ADDED", "ENDS", "WHAT"}, rows)
}

func callerNames(ctx context.Context, client *api.Client) ([]string, error) {
	all, err := client.Callers(ctx)
	var names []string
	for _, caller := range all {
		names = append(names, string(caller.ID))
	}
	return names, err
}

func (c *cli) callerRotateCommand() *cobra.Command {
	var s shows
	var overlap string
	cmd := &cobra.Command{
		Use:   "rotate NAME",
		Short: "Give a caller a new secret, or something else to show, beside what it has",
		Long: `Rotate makes a new secret and prints it. The old one stays good for --overlap, so
that the workload can be given the new one in peace; there are never more than two.
With --keys, --issuer, --certificate or --spiffe the caller can show that as well,
and nothing it has ends by it: let that expire when it is no longer used.`,
		Example:           "  mandate caller rotate billing --overlap 2h > /run/secrets/mandate-billing\n  mandate caller rotate nightly --keys next.pub.pem",
		Args:              words("NAME"),
		ValidArgsFunction: c.complete(0, callerNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			show, err := s.read()
			if err != nil {
				return err
			}
			in := api.RotateCallerRequest{Expires: show.Expires}
			if overlap != "" {
				if in.Overlap, err = seconds("overlap", overlap); err != nil {
					return err
				}
			}
			return c.registered(cmd.Context(), func(ctx context.Context, client *api.Client) (api.CallerAnswer, error) {
				if show.Keys+show.Issuer+show.Certificate+show.SPIFFE != "" {
					return client.AddCredential(ctx, args[0], show)
				}
				return client.RotateCaller(ctx, args[0], in)
			}, "Caller %s has another credential.")
		},
	}
	s.flags(cmd)
	cmd.Flags().StringVar(&overlap, "overlap", "", "how long the old secret stays good (default 24h)")
	return cmd
}

func (c *cli) callerExpireCommand() *cobra.Command {
	var after string
	cmd := &cobra.Command{
		Use:               "expire NAME CREDENTIAL",
		Short:             "Let something that a caller shows end, now or soon",
		Long:              `Expire ends a credential at once, or after --after. "mandate caller show" lists them. An end is never put off by it.`,
		Example:           "  mandate caller expire billing K7Q2M4XA",
		Args:              words("NAME", "CREDENTIAL"),
		ValidArgsFunction: byPosition(c.complete(0, callerNames)),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			in := api.ExpireRequest{Credential: args[1]}
			if after != "" {
				if in.After, err = seconds("after", after); err != nil {
					return err
				}
			}
			return c.done(func(client *api.Client) error { return client.ExpireCredential(cmd.Context(), args[0], in) }, "Credential %s of caller %s ends.", args[1], args[0])
		},
	}
	cmd.Flags().StringVar(&after, "after", "", "when, such as 2h (default: now)")
	return cmd
}

func (c *cli) callerAdoptCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "adopt NAME",
		Short: "Answer for a caller from now on",
		Long: `Adopt makes you the owner of a caller, in the place of whoever registered it. The owner
cannot be the second person where the caller asks for something that needs one, and
while it is not known who that is, nobody can. What was asked and agreed to is asked anew.`,
		Example:           "  mandate caller adopt billing",
		Args:              words("NAME"),
		ValidArgsFunction: c.complete(0, callerNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.done(func(client *api.Client) error { return client.AdoptCaller(cmd.Context(), args[0]) }, "Caller %s is yours.", args[0])
		},
	}
}

func (c *cli) callerRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "remove NAME",
		Short:             "Take a caller away, with everything that it shows",
		Long:              `Remove takes a caller away. Nothing is handed out to it any more, in any replica, within a second; tokens that it has live on until they expire.`,
		Example:           "  mandate caller remove billing",
		Args:              words("NAME"),
		ValidArgsFunction: c.complete(0, callerNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.done(func(client *api.Client) error { return client.RemoveCaller(cmd.Context(), args[0]) }, "Caller %s is removed.", args[0])
		},
	}
}

// done does something of which there is only to say that it was done.
func (c *cli) done(do func(*api.Client) error, note string, args ...any) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	if err := do(client); err != nil {
		return err
	}
	if c.json {
		return c.printJSON(map[string]bool{"ok": true})
	}
	c.note(note, args...)
	return nil
}
