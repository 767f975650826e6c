package demo

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/emulator"
)

// elsewhere returns a refresh token that another program obtained for user in
// tenant, with the same application.
func (d *Demo) elsewhere(t *testing.T, tenant, user string) string {
	t.Helper()
	credential, err := d.copied()
	if err != nil {
		t.Fatal(err)
	}
	refresh, err := d.obtain(t.Context(), tenant, user, credential)
	if err != nil {
		t.Fatal(err)
	}
	return refresh
}

func TestImport(t *testing.T) {
	for name, tt := range map[string]struct {
		tenant, user, expected string
		reason                 mandate.Reason // "" if it is imported
	}{
		"with MFA":       {emulator.ContosoTenant, User, User, ""},
		"any user":       {emulator.ContosoTenant, secondUser, "", ""},
		"without MFA":    {emulator.ContosoTenant, "nomfa@contoso.example", "", mandate.ReasonMFA},
		"another user":   {emulator.ContosoTenant, secondUser, User, mandate.ReasonUser},
		"no agent":       {emulator.ContosoTenant, "tech@contoso.example", "", mandate.ReasonRole},
		"guest":          {emulator.ContosoTenant, "guest@adventure-works.example", "", mandate.ReasonGuest},
		"another tenant": {emulator.FabrikamTenant, "admin@fabrikam.example", "", mandate.ReasonEntra},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, log := begin(t, Config{Secret: true})
			ctx := t.Context()
			if _, err := d.Invite(ctx); err != nil {
				t.Fatal(err)
			}
			token := d.elsewhere(t, tt.tenant, tt.user)
			in := api.ImportRequest{RefreshToken: token, User: tt.expected, DryRun: true}
			for _, dry := range []bool{true, false} {
				in.DryRun = dry
				out, err := d.Operator.Import(ctx, Partner, in)
				var r *mandate.Refusal
				if tt.reason == "" && (err != nil || out.Grant.UserName != tt.user || out.Waits != "") {
					t.Fatalf("dry run %v: %+v, %v", dry, out, err)
				}
				if tt.reason != "" && (!errors.As(err, &r) || r.Reason != tt.reason) {
					t.Fatalf("dry run %v: %v, want %s", dry, err, tt.reason)
				}
				p, err := d.Operator.Partner(ctx, Partner)
				if stored := p.Grant != nil; err != nil || stored != (tt.reason == "" && !dry) {
					t.Errorf("dry run %v: stored %+v, %v", dry, p.Grant, err)
				}
			}
			if _, err := d.token(ctx, "graph"); (err == nil) != (tt.reason == "") {
				t.Errorf("a token: %v", err)
			}
			file, err := os.ReadFile(d.File("data/audit/00000000000000000000.log"))
			if err != nil || strings.Contains(string(file)+log.String(), token) {
				t.Errorf("the refresh token is in the record or the log (%v)", err)
			}
		})
	}
}

// An import replaces nothing without an operator, and a consent replaces it.
func TestImportWaitsAndIsReplaced(t *testing.T) {
	t.Parallel()
	d, _ := begin(t, Config{Secret: true})
	ctx := t.Context()
	d.attempt(t, attempt{invited: User, user: User})
	out, err := d.Operator.Import(ctx, Partner, api.ImportRequest{RefreshToken: d.elsewhere(t, emulator.ContosoTenant, User)})
	if err != nil || out.Waits == "" || out.Grant.State != mandate.StateCandidate || out.Grant.Origin != mandate.OriginImport {
		t.Fatalf("%+v, %v", out, err)
	}
	a, err := d.Operator.Decide(ctx, Partner, "approve", api.DecideRequest{Generation: out.Grant.Generation})
	if err != nil || a.Partner.Grant.Origin != mandate.OriginImport || a.Partner.Fallback != nil {
		t.Fatalf("%+v, %v", a, err)
	}
	all, err := d.Operator.Forecast(ctx)
	if err != nil || !slices.ContainsFunc(all, func(f mandate.Trouble) bool { return f.Kind == mandate.TroubleImport && f.Partner == Partner }) {
		t.Errorf("forecast %+v, %v", all, err)
	}
	if p := d.attempt(t, attempt{invited: User, user: User}); contains(p.Text(), "Consent stored and active") != nil {
		t.Errorf("a consent in place of it: %q", p.Text())
	}
	if _, err := d.Operator.Withdraw(ctx, Partner, api.WithdrawRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Operator.Import(ctx, Partner, api.ImportRequest{RefreshToken: d.elsewhere(t, emulator.ContosoTenant, User)}); !errors.Is(err, mandate.ErrNoGrant) {
		t.Errorf("an import past a withdrawal: %v", err)
	}
}

// A refresh token is read out of the vault of another program, in either
// layout.
func TestImportFromKeyVault(t *testing.T) {
	t.Parallel()
	for name, secrets := range map[string]func(token string) map[string]string{
		"samples": func(token string) map[string]string { return map[string]string{emulator.ContosoTenant: token} },
		"cipp": func(token string) map[string]string {
			return map[string]string{"ApplicationID": emulator.ApplicationID, "TenantID": emulator.ContosoTenant, "RefreshToken": token}
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, _ := begin(t, Config{Idle: true, Secret: true})
			ctx := t.Context()
			v := &vaulted{Demo: d, grants: d.Emulator.Endpoints().KeyVault}
			v.register(t, vaultAdmin, "administrator-not-a-secret")
			v.register(t, identities[0].id, "reader-not-a-secret")
			v.write(t, "reader.secret", "reader-not-a-secret")
			if err := d.Emulator.SetVaultPolicies(emulator.DefaultVault, emulator.VaultPolicy{Principal: vaultAdmin, Secrets: []string{"all"}}); err != nil {
				t.Fatal(err)
			}
			config, err := os.ReadFile(d.File("mandate.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			v.write(t, "mandate.yaml", string(config)+"identities:\n  - {name: reader, tenant: "+emulator.ContosoTenant+", client_id: "+identities[0].id+", secret: reader.secret}\n")
			if err := d.serve(context.WithoutCancel(ctx)); err != nil {
				t.Fatal(err)
			}
			if _, err := d.Invite(ctx); err != nil {
				t.Fatal(err)
			}
			c, err := azsecrets.NewClient(v.grants, v.admin(t), &azsecrets.ClientOptions{ClientOptions: v.options(), DisableChallengeResourceVerification: true})
			if err != nil {
				t.Fatal(err)
			}
			for name, value := range secrets(d.elsewhere(t, emulator.ContosoTenant, User)) {
				if _, err := c.SetSecret(ctx, name, azsecrets.SetSecretParameters{Value: &value}, nil); err != nil {
					t.Fatal(err)
				}
			}
			in := api.ImportRequest{KeyVault: &api.KeyVaultSource{URL: v.grants, Layout: name}, User: User}
			if _, err := d.Operator.Import(ctx, Partner, in); !errors.Is(err, mandate.ErrInvalid) || contains(err.Error(), "secrets get") != nil {
				t.Errorf("without permission: %v", err)
			}
			if err := d.Emulator.SetVaultPolicies(emulator.DefaultVault, emulator.VaultPolicy{Principal: identities[0].id, Secrets: []string{"get"}}); err != nil {
				t.Fatal(err)
			}
			out, err := d.Operator.Import(ctx, Partner, in)
			if err != nil || out.Grant.UserName != User || out.Grant.Origin != mandate.OriginImport || out.Waits != "" {
				t.Fatalf("%+v, %v", out, err)
			}
			if _, err := d.token(ctx, "graph"); err != nil {
				t.Error(err)
			}
		})
	}
}
