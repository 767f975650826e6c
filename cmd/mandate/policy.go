package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/policy"
)

func (c *cli) policyCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "policy",
		Short: "Check, try, explain and change who may have what",
		Long: `Policy has commands about the rules that say who may have which tokens. A policy
is a directory of *.cedar files with an optional groups.yaml, and tests beside them
in *_test.yaml. What is in force is in the server's database: "apply" puts files in
force, in all replicas at once.

"check", "test" and "convert" need no server. They know Microsoft's clouds; for
another, such as the emulator, name the server's configuration with --config.`,
		Example: `  mandate policy check policy/
  mandate policy test policy/
  mandate policy diff policy/
  mandate policy apply policy/
  mandate policy explain 4711`,
	})
	cmd.AddCommand(c.policyCheckCommand(), c.policyTestCommand(), c.policyShowCommand(), c.policyDiffCommand(), c.policyApplyCommand(),
		c.policyExplainCommand(), c.policyConvertCommand(), c.policySchemaCommand())
	return cmd
}

// configFlag adds --config, which says which clouds there are.
func configFlag(cmd *cobra.Command, path *string) *cobra.Command {
	cmd.Flags().StringVar(path, "config", "", "the server's configuration, for its clouds (default: Microsoft's clouds)")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
	return cmd
}

func (c *cli) policyCheckCommand() *cobra.Command {
	var config string
	return configFlag(&cobra.Command{
		Use:   "check PATH",
		Short: "Check a policy before it is used",
		Long: `Check reads a policy and reports everything that is wrong, each with its file and
line: what is no Cedar, what the schema does not know, and what every rule must
have. It needs no server and changes nothing. The exit status is 1 if anything is
wrong.`,
		Example: "  mandate policy check policy/\n  mandate policy check policy/ --config mandate.yaml --json",
		Args:    words("PATH"),
		RunE: func(_ *cobra.Command, args []string) error {
			set, _, err := c.compile(args[0], config)
			return c.reportCheck(args[0], set, err)
		},
	}, &config)
}

// compile reads and compiles a policy for the clouds of a configuration.
func (c *cli) compile(path, config string) (*policy.Set, []mandate.Cloud, error) {
	clouds, err := c.Clouds(config)
	if err != nil {
		return nil, nil, err
	}
	src, err := policy.Read(path)
	if err != nil {
		return nil, nil, err
	}
	set, err := policy.Compile(src, clouds)
	return set, clouds, err
}

func (c *cli) reportCheck(path string, set *policy.Set, err error) error {
	if err != nil {
		problems := strings.Split(err.Error(), "\n")
		if c.json {
			err = c.printJSON(map[string]any{"ok": false, "errors": problems})
		} else {
			_, err = fmt.Fprintln(c.out, cleanLines(problems))
		}
		return errors.Join(err, fmt.Errorf("%s: %d thing(s) wrong", path, len(problems)))
	}
	if c.json {
		return c.printJSON(map[string]any{"ok": true, "rules": set.Len(), "version": set.Version()})
	}
	_, err = fmt.Fprintf(c.out, "ok: %d rule(s), version %s\n", set.Len(), set.Version())
	return err
}

func cleanLines(lines []string) string {
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = clean(l)
	}
	return strings.Join(out, "\n")
}

func (c *cli) policyTestCommand() *cobra.Command {
	var config string
	return configFlag(&cobra.Command{
		Use:   "test DIR",
		Short: "Run the tests beside a policy",
		Long: `Test decides the requests in the *_test.yaml files of a policy's directory, and
compares what comes of them with what they say: "allow" or "deny", by which rule
("none" is no rule), and a part of the reason. It needs no server. The exit status is
1 if any test fails.`,
		Example: `  mandate policy test policy/

  # policy/support_test.yaml
  given: {caller: helpdesk, partner: contoso, audience: partnercenter, purpose: support}
  tests:
    - {name: one customer, path: /v1/customers/22222222-2222-2222-2222-222222222222/users,
       method: GET, ticket: T-1, want: allow, rule: support-adatum}
    - {name: no token, want: deny, rule: none}`,
		Args: words("DIR"),
		RunE: func(_ *cobra.Command, args []string) error { return c.testPolicy(args[0], config) },
	}, &config)
}

func (c *cli) testPolicy(dir, config string) error {
	set, clouds, err := c.compile(dir, config)
	if err != nil {
		return c.reportCheck(dir, nil, err)
	}
	files, err := policy.TestFiles(dir)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("%s has no file whose name ends in _test.yaml", dir)
	}
	all, failed := []policy.Result{}, 0
	for _, f := range files {
		results, err := set.Test(f, clouds)
		if err != nil {
			return err
		}
		all = append(all, results...)
	}
	for _, r := range all {
		if r.OK {
			continue
		}
		failed++
		if !c.json {
			fmt.Fprintf(c.out, "FAIL %s: %s\n  got  %s\n  want %s\n", r.File, clean(r.Name), clean(r.Got), clean(r.Want))
		}
	}
	if c.json {
		err = c.printJSON(map[string]any{"ok": failed == 0, "tests": all})
	} else {
		_, err = fmt.Fprintf(c.out, "%d of %d tests passed\n", len(all)-failed, len(all))
	}
	if err == nil && failed > 0 {
		err = fmt.Errorf("%d test(s) failed", failed)
	}
	return err
}

func (c *cli) policyConvertCommand() *cobra.Command {
	var config, to string
	cmd := configFlag(&cobra.Command{
		Use:   "convert FILE",
		Short: "Make a policy of a rules file in YAML",
		Long: `Convert writes the rules of a rules.yaml, as they were before policies were written
in Cedar, as a policy that decides the same. With --to it makes a directory; without,
it prints the Cedar, and groups.yaml, where one is needed, as a comment.`,
		Example: "  mandate policy convert rules.yaml --to policy/\n  mandate policy convert rules.yaml",
		Args:    words("FILE"),
		RunE:    func(_ *cobra.Command, args []string) error { return c.convertPolicy(args[0], to, config) },
	}, &config)
	cmd.Flags().StringVar(&to, "to", "", "directory to write; it must not be there yet")
	_ = cmd.MarkFlagDirname("to")
	return cmd
}

func (c *cli) convertPolicy(path, to, config string) error {
	clouds, err := c.Clouds(config)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	src, err := policy.Convert(path, data, clouds)
	if err != nil {
		return err
	}
	if to != "" {
		return c.writePolicy(to, src)
	}
	if c.json {
		return c.printJSON(map[string]any{"files": src})
	}
	for _, f := range src {
		text := f.Text
		if f.Name == policy.GroupsFile {
			text = "\n// groups.yaml:\n// " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n// ") + "\n"
		}
		if _, err := fmt.Fprint(c.out, text); err != nil {
			return err
		}
	}
	return nil
}

func (c *cli) writePolicy(dir string, src policy.Source) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for _, f := range src {
		if err := os.WriteFile(filepath.Join(dir, f.Name), []byte(f.Text), 0o644); err != nil {
			return err
		}
	}
	if c.json {
		return c.printJSON(map[string]any{"directory": dir, "files": len(src)})
	}
	_, err := fmt.Fprintf(c.out, "%d file(s) in %s\n", len(src), clean(dir))
	return err
}

func (c *cli) policySchemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the schema of policies",
		Long: `Schema prints the vocabulary of policies in Cedar's schema language, for editors
and for Cedar's own tools.`,
		Example: "  mandate policy schema > mandate.cedarschema",
		Args:    words(),
		RunE: func(*cobra.Command, []string) error {
			if c.json {
				return c.printJSON(map[string]string{"schema": policy.Schema()})
			}
			_, err := fmt.Fprint(c.out, policy.Schema())
			return err
		},
	}
}
