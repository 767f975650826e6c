package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/internal/app"
)

func (c *cli) doctorCommand() *cobra.Command {
	var config string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what the server protects from, and what it does not",
		Long: `Doctor reads the configuration and the files that it names, asks the server how far
the witnesses of its audit log are and what Entra has of the applications, and says
what it thinks of each thing:

  good    it is as it should be
  advice  it works, and something else would protect from more
  bad     something that is promised does not hold

The level says what a thief of the whole disk gets: at 1 everything, at 2 nothing.
A registration that hands out tokens without a code (implicit grant, hybrid flow),
or that has a credential which nobody here knows, is bad; the server can read it
under the same conditions as for mandate credential status.
Nothing is changed. The exit status is 1 if anything is bad.`,
		Example: `  mandate doctor --config /etc/mandate/mandate.yaml
  mandate doctor --config mandate.yaml --json | jq '.remarks[] | select(.grade != "good")'`,
		Args: words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := c.Diagnose(config)
			if err != nil {
				return err
			}
			live, err := c.askServer(cmd.Context())
			if err != nil {
				return err
			}
			d.Remarks = append(d.Remarks, live...)
			return c.printDiagnosis(d)
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "configuration file of the server")
	need(cmd, "config")
	return cmd
}

// askServer says what is to be said of the server that runs, if one does.
func (c *cli) askServer(ctx context.Context) ([]app.Remark, error) {
	client, err := c.client()
	var state api.AuditState
	if err == nil {
		state, err = client.AuditState(ctx)
	}
	if errors.Is(err, api.ErrUnreachable) {
		return []app.Remark{{Grade: app.Advice, Subject: "server", Message: "none answers, so that only files were looked at: " + err.Error()}}, nil
	}
	if errors.Is(err, mandate.ErrUnavailable) {
		return []app.Remark{idle(err.Error())}, nil
	}
	if err != nil {
		return nil, err
	}
	out := witnessRemarks(&state)
	if st, err := client.Status(ctx); err == nil && !st.Ready {
		out = append(out, idle(st.Reason))
	}
	all, err := client.Credentials(ctx, "")
	if err != nil {
		return append(out, app.Remark{Grade: app.Advice, Subject: "registrations", Message: "what Entra has of the applications is not known: " + err.Error()}), nil
	}
	for i := range all {
		out = append(out, registrationRemarks(&all[i])...)
	}
	return out, nil
}

// idle says of a server that it does nothing.
func idle(why string) app.Remark {
	return app.Remark{Grade: app.Bad, Subject: "server", Message: "does nothing at the moment: " + why}
}

// registrationRemarks says what Entra lets others do with an application.
func registrationRemarks(st *api.CredentialStatus) (out []app.Remark) {
	say := func(grade, format string, args ...any) {
		out = append(out, app.Remark{Grade: grade, Subject: "registration " + st.Application, Message: fmt.Sprintf(format, args...)})
	}
	if st.Unasked != "" {
		say(app.Advice, "was not read, so that nobody here knows whether the implicit grant is off, and who else has a credential: %s", st.Unasked)
		return out
	}
	if len(st.Implicit) > 0 {
		say(app.Bad, "lets a browser have %s without a code (implicit grant, hybrid flow), which nothing here uses and where tokens leak: switch it off in the portal, under Authentication", strings.Join(st.Implicit, " and "))
	}
	if n := st.Strangers(); n > 0 {
		say(app.Bad, "has %d credential(s) that are not known here, and whoever has one can act as this application: mandate credential status %s", n, st.Application)
	}
	if len(out) == 0 {
		say(app.Good, "hands out tokens for a code only, and has no credential that is not known here")
	}
	return out
}

// witnessRemarks says how fresh the witnesses are.
func witnessRemarks(s *api.AuditState) (out []app.Remark) {
	for _, w := range s.Witnesses {
		r := app.Remark{Grade: app.Good, Subject: "witness " + w.Name, Message: fmt.Sprintf("has all %d records", w.Size)}
		switch {
		case w.Changed:
			r.Grade = app.Bad
			r.Message = fmt.Sprintf("has seen records that are not in this log, which was set back or rewritten (docs/audit.md), noticed at %s: %s", moment(w.Since), w.Error)
		case w.Error != "":
			r.Grade = app.Bad
			r.Message = fmt.Sprintf("takes no checkpoints since %s, and %d record(s) could be changed without it: %s", moment(w.Since), w.Behind, w.Error)
		case w.Behind > 0:
			r.Message = fmt.Sprintf("has %d records; the last %d are on their way", w.Size, w.Behind)
		}
		out = append(out, r)
	}
	return out
}

var gradePaints = map[string]paint{app.Good: green, app.Advice: yellow, app.Bad: red}

func (c *cli) printDiagnosis(d app.Diagnosis) error {
	bad := 0
	rows := make([][]cell, 0, len(d.Remarks))
	for _, r := range d.Remarks {
		if r.Grade == app.Bad {
			bad++
		}
		rows = append(rows, []cell{{r.Grade, gradePaints[r.Grade]}, {text: r.Subject}, {text: r.Message}})
	}
	var err error
	if c.json {
		err = c.printJSON(d)
	} else {
		err = table(c.out, []string{"", "WHAT", ""}, rows)
	}
	if err == nil && bad > 0 {
		err = fmt.Errorf("%d thing(s) are bad", bad)
	}
	return err
}
