package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
)

func (c *cli) tokenCommand() *cobra.Command {
	var in api.TokenRequest
	var lifetime string
	var show bool
	cmd := &cobra.Command{
		Use:   "token PARTNER AUDIENCE --purpose PURPOSE",
		Short: "Get an access token",
		Long: `Token gets an access token for an API in a tenant, and prints it to standard
output alone; what is known of it goes to standard error. The rules must allow it
to you, as "uid:N", with this purpose; it is recorded.

PARTNER is a short name or tenant id. AUDIENCE is an alias, such as partnercenter,
graph or arm, or a resource URI. The token is for the partner's own tenant unless
--tenant names a customer's.

Whoever has the token can use it until it expires, so it is not printed to a
terminal unless you ask for that with --show. Where one call is all you need,
"mandate call" makes it without the token leaving the server.`,
		Example: `  mandate token contoso graph --purpose support --ticket T-1042 | some-program
  mandate token contoso graph --tenant 66666666-7777-8888-9999-aaaaaaaaaaaa \
    --scope User.Read.All --purpose support --min-lifetime 20m --json > token.json`,
		Args:              words("PARTNER", "AUDIENCE"),
		ValidArgsFunction: byPosition(c.complete(0, partnerNames), c.complete(1, audiences)),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			in.Partner, in.Audience = args[0], args[1]
			if terminal(c.out) && !show {
				return usage("standard output is a terminal, and would show the token; pipe it, or add --show")
			}
			if lifetime != "" {
				if in.MinLifetime, err = seconds("min-lifetime", lifetime); err != nil {
					return err
				}
			}
			return c.token(cmd, in)
		},
	}
	f := cmd.Flags()
	f.StringVar(&in.Tenant, "tenant", "", "tenant id of a customer (default: the partner's own)")
	f.StringSliceVar(&in.Scopes, "scope", nil, "permission to ask for; can be given often (default: all consented ones)")
	f.StringVar(&in.Claims, "claims", "", "claims challenge to answer, as JSON")
	f.StringVar(&lifetime, "min-lifetime", "", "how long the token must live at least, such as 20m")
	f.BoolVar(&show, "show", false, "print the token even to a terminal")
	whyFlags(cmd, &in.Purpose, &in.Ticket)
	return cmd
}

// whyFlags adds the flags that say what a token is for.
func whyFlags(cmd *cobra.Command, purpose, ticket *string) {
	cmd.Flags().StringVar(purpose, "purpose", "", "what it is for; a name that the rules know")
	cmd.Flags().StringVar(ticket, "ticket", "", "reference for the record")
	need(cmd, "purpose")
}

func (c *cli) token(cmd *cobra.Command, in api.TokenRequest) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	tok, err := client.Token(cmd.Context(), in)
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(tokenJSON(tok))
	}
	for _, fact := range [][2]any{
		{"tenant", tok.Tenant}, {"audience", tok.Audience}, {"scopes", strings.Join(tok.Scopes, " ")},
		{"expires in", time.Until(tok.Expires).Round(time.Second)}, {"generation", tok.Generation},
		{"rule", tok.Rule}, {"record", fmt.Sprintf("%d:%s", tok.Receipt.Index, tok.Receipt.Hash)},
	} {
		c.note("%-11s %v", fact[0], fact[1])
	}
	_, err = fmt.Fprintln(c.out, tok.Access.Reveal())
	return err
}

// tokenJSON is what the API answers.
func tokenJSON(tok mandate.Token) any {
	return struct {
		AccessToken string           `json:"access_token"`
		TokenType   string           `json:"token_type"`
		ExpiresIn   int64            `json:"expires_in"`
		Tenant      mandate.TenantID `json:"tenant"`
		Audience    mandate.Audience `json:"audience"`
		Scopes      []mandate.Scope  `json:"scopes"`
		Generation  int64            `json:"generation"`
		Decision    string           `json:"decision"`
		Record      mandate.Receipt  `json:"record"`
	}{
		tok.Access.Reveal(), "Bearer", int64(time.Until(tok.Expires).Seconds()), tok.Tenant, tok.Audience, tok.Scopes,
		tok.Generation, tok.Rule, tok.Receipt,
	}
}
