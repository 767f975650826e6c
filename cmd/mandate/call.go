package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
)

// maxBody is the longest body that is read, in bytes. The server's own limit
// is lower.
const maxBody = 1 << 20

func (c *cli) callCommand() *cobra.Command {
	var in api.CallRequest
	var body string
	var headers []string
	cmd := &cobra.Command{
		Use:   "call PARTNER AUDIENCE METHOD PATH --purpose PURPOSE",
		Short: "Call an API without the token leaving the server",
		Long: `Call lets the server call an API: Partner Center, Graph, Azure Resource Manager or
another that is configured. The token stays in the server. The rules must allow
it to you, as "uid:N", with this purpose; it is recorded with method and path.

AUDIENCE says which host is called, and nothing in PATH can change that: PATH
begins with a slash, or is a URL of that very host. Redirects are not followed.

The body of the answer goes to standard output, its status to standard error. With
--json standard output gets one object with status, headers and body. With --all
the pages of a list are followed, on the same host and below the same version of
the API only, and standard output gets one item a line.

If the API answers with an error, the exit status is 1.`,
		Example: `  mandate call contoso partnercenter GET /v1/customers --purpose support --all
  mandate call contoso graph GET '/v1.0/users?$select=displayName' \
    --tenant 66666666-7777-8888-9999-aaaaaaaaaaaa --purpose support
  mandate call contoso graph PATCH /v1.0/users/ada@contoso.example \
    --body @change.json --header 'If-Match: *' --purpose support --ticket T-1042`,
		Args:              words("PARTNER", "AUDIENCE", "METHOD", "PATH"),
		ValidArgsFunction: byPosition(c.complete(0, partnerNames), c.complete(1, audiences), completeMethod),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			in.Partner, in.Audience, in.Method, in.Path = args[0], args[1], strings.ToUpper(args[2]), args[3]
			if in.Headers, err = parseHeaders(headers); err != nil {
				return err
			}
			if in.Body, err = c.readBody(body); err != nil {
				return err
			}
			return c.call(cmd, in)
		},
	}
	f := cmd.Flags()
	f.StringVar(&in.Tenant, "tenant", "", "tenant id of a customer (default: the partner's own)")
	f.BoolVar(&in.All, "all", false, "follow the pages of a list, and print one item a line")
	f.StringVar(&body, "body", "", "body to send: @FILE, or - for standard input")
	f.StringArrayVar(&headers, "header", nil, "header to send, as 'Name: value'; can be given often")
	whyFlags(cmd, &in.Purpose, &in.Ticket)
	return cmd
}

func completeMethod(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}, cobra.ShellCompDirectiveNoFileComp
}

func parseHeaders(in []string) (map[string]string, error) {
	out := make(map[string]string, len(in))
	for _, line := range in {
		name, value, ok := strings.Cut(line, ":")
		if name = http.CanonicalHeaderKey(strings.TrimSpace(name)); !ok || name == "" {
			return nil, usage("--header: write it as 'Name: value'")
		}
		if _, twice := out[name]; twice {
			return nil, usage("--header: %s is given twice", name)
		}
		out[name] = strings.TrimSpace(value)
	}
	return out, nil
}

// readBody reads the body from where the flag says. It is never on the command
// line itself, where every user of the machine could read it.
func (c *cli) readBody(from string) (string, error) {
	var in io.Reader
	switch {
	case from == "":
		return "", nil
	case from == "-":
		in = c.in
	case strings.HasPrefix(from, "@"):
		f, err := os.Open(from[1:])
		if err != nil {
			return "", usage("--body: %v", err)
		}
		defer f.Close()
		in = f
	default:
		return "", usage("--body: must be @FILE, or - for standard input")
	}
	data, err := io.ReadAll(io.LimitReader(in, maxBody+1))
	if err == nil && len(data) > maxBody {
		err = usage("--body: is longer than %d bytes", maxBody)
	}
	return string(data), err
}

func (c *cli) call(cmd *cobra.Command, in api.CallRequest) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	if in.All {
		return c.callAll(cmd, client, in)
	}
	a, err := client.Call(cmd.Context(), in)
	if err != nil {
		return err
	}
	c.note("HTTP %d %s", a.Status, http.StatusText(a.Status))
	if c.json {
		err = c.printJSON(answerJSON(a))
	} else {
		err = c.printBody(a.Body)
	}
	return errors.Join(err, a.Err())
}

func (c *cli) callAll(cmd *cobra.Command, client *api.Client, in api.CallRequest) error {
	n := 0
	for item, err := range client.CallAll(cmd.Context(), in) {
		var answered *api.CallError
		if errors.As(err, &answered) && n == 0 && !c.json {
			c.note("HTTP %d %s", answered.Answer.Status, http.StatusText(answered.Answer.Status))
			return errors.Join(c.printBody(answered.Answer.Body), err)
		}
		if err != nil {
			return err
		}
		n++
		if _, err := fmt.Fprintf(c.out, "%s\n", harmless(item)); err != nil {
			return err
		}
	}
	c.note("%d items", n)
	return nil
}

// printBody prints a body as it came; to a terminal indented, and harmless.
func (c *cli) printBody(body []byte) error {
	if terminal(c.out) && len(body) > 0 {
		body = legible(body)
	}
	_, err := c.out.Write(body)
	return err
}

// legible is a body as a person reads it at a terminal.
func legible(body []byte) []byte {
	var b bytes.Buffer
	if json.Indent(&b, bytes.TrimSpace(body), "", "  ") == nil {
		return append(harmless(b.Bytes()), '\n')
	}
	b.Reset()
	for line := range strings.Lines(string(body)) {
		b.WriteString(clean(strings.TrimRight(line, "\r\n")) + "\n")
	}
	return append(bytes.TrimRight(b.Bytes(), "\n"), '\n')
}

// answerJSON is an answer as one object. A body that is not JSON is text.
func answerJSON(a *api.CallAnswer) any {
	var body any = string(a.Body)
	if json.Valid(a.Body) {
		body = json.RawMessage(a.Body)
	}
	headers := map[string]string{}
	for name := range a.Header {
		headers[name] = a.Header.Get(name)
	}
	return struct {
		Status  int               `json:"status"`
		Headers map[string]string `json:"headers"`
		Body    any               `json:"body"`
		Rule    string            `json:"decision"`
		Record  mandate.Receipt   `json:"record"`
	}{a.Status, headers, body, a.Rule, a.Record}
}
