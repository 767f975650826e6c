package interop_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
	msalerrors "github.com/AzureAD/microsoft-authentication-library-for-go/apps/errors"
	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/mandate-sam/mandate/emulator"
)

func TestEntra(t *testing.T) {
	t.Run("msal-go", testMSAL)
	t.Run("azidentity", testAzidentity)
	t.Run("go-oidc", testOIDC)
}

// msal is a confidential client of the fixture's application in a tenant.
func msal(t *testing.T, e *emulator.Emulator, tenant string, cred confidential.Credential) confidential.Client {
	t.Helper()
	c, err := confidential.New(e.Endpoints().Login+"/"+tenant, emulator.ApplicationID, cred,
		confidential.WithInstanceDiscovery(false), confidential.WithHTTPClient(client(e)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func secret(t *testing.T, value string) confidential.Credential {
	t.Helper()
	cred, err := confidential.NewCredFromSecret(value)
	if err != nil {
		t.Fatal(err)
	}
	return cred
}

func testMSAL(t *testing.T) {
	ran(t, "github.com/AzureAD/microsoft-authentication-library-for-go")
	t.Run("secret", testMSALSecret)
	t.Run("certificate", testMSALCertificate)
	t.Run("code", testMSALCode)
	t.Run("customer", testMSALCustomer)
	t.Run("on behalf of", testMSALOnBehalfOf)
	t.Run("federated", testMSALFederated)
	t.Run("refusals", testMSALRefusals)
}

// Client credentials, and the second token out of the client's own cache.
func testMSALSecret(t *testing.T) {
	e := start(t)
	c := msal(t, e, "adatum.example", secret(t, emulator.ApplicationSecret))
	first, err := c.AcquireTokenByCredential(t.Context(), []string{graph + "/.default"})
	if err != nil {
		t.Fatal(err)
	}
	wantClaims(t, first.AccessToken, map[string]any{"aud": graph, "tid": emulator.AdatumTenant, "idtyp": "app", "appidacr": "1"})
	second, err := c.AcquireTokenByCredential(t.Context(), []string{graph + "/.default"})
	if err != nil {
		t.Fatal(err)
	}
	if second.AccessToken != first.AccessToken || second.Metadata.TokenSource != confidential.TokenSourceCache {
		t.Error("the client did not keep its token")
	}
}

func testMSALCertificate(t *testing.T) {
	e := start(t)
	cert, key := certificate(t, e)
	for name, options := range map[string][]confidential.Option{"thumbprint": nil, "x5c": {confidential.WithX5C()}} {
		cred, err := confidential.NewCredFromCert([]*x509.Certificate{cert}, crypto.PrivateKey(key))
		if err != nil {
			t.Fatal(err)
		}
		options = append(options, confidential.WithInstanceDiscovery(false), confidential.WithHTTPClient(client(e)))
		c, err := confidential.New(e.Endpoints().Login+"/"+emulator.AdatumTenant, emulator.ApplicationID, cred, options...)
		if err != nil {
			t.Fatal(err)
		}
		res, err := c.AcquireTokenByCredential(t.Context(), []string{graph + "/.default"})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		wantClaims(t, res.AccessToken, map[string]any{"appidacr": "2"})
	}
}

// signedIn has admin sign in with PKCE, and redeems the code.
func signedIn(t *testing.T, e *emulator.Emulator, c confidential.Client) confidential.AuthResult {
	t.Helper()
	return signedInFor(t, e, c, partnerCenter+"/user_impersonation")
}

func signedInFor(t *testing.T, e *emulator.Emulator, c confidential.Client, scope string) confidential.AuthResult {
	t.Helper()
	authorize, err := c.AuthCodeURL(t.Context(), emulator.ApplicationID, redirect, []string{scope}, confidential.WithLoginHint(admin))
	if err != nil {
		t.Fatal(err)
	}
	verifier := oauth2.GenerateVerifier() // the client's users add the challenge themselves
	back := newBrowser(t, e).signIn(authorize+"&code_challenge_method=S256&code_challenge="+oauth2.S256ChallengeFromVerifier(verifier), admin)
	code := back.Query().Get("code")
	if code == "" {
		t.Fatalf("no code: %v", back)
	}
	if _, err := c.AcquireTokenByAuthCode(t.Context(), code, redirect, []string{scope}, confidential.WithChallenge(oauth2.GenerateVerifier())); !refusedWith(err, "AADSTS501481") {
		t.Errorf("another's verifier: got %v, want AADSTS501481", err)
	}
	res, err := c.AcquireTokenByAuthCode(t.Context(), code, redirect, []string{scope}, confidential.WithChallenge(verifier))
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// refusedWith reports whether the client understood the answer as an error
// that says so.
func refusedWith(err error, code string) bool {
	var call msalerrors.CallErr
	return errors.As(err, &call) && strings.Contains(call.Err.Error(), code)
}

// A sign-in with PKCE; tokens for other resources, and new ones for those that
// expire, silently.
func testMSALCode(t *testing.T) {
	e := start(t)
	consent(t, e)
	e.Dial(func(d *emulator.Dials) { d.AccessTokenLifetime = time.Minute }) // less than the client wants left
	c := msal(t, e, "contoso.example", secret(t, emulator.ApplicationSecret))
	res := signedIn(t, e, c)
	if res.Account.PreferredUsername != admin || res.IDToken.TenantID != emulator.ContosoTenant || res.IDToken.Oid == "" {
		t.Errorf("got account %q of %q, object %q", res.Account.PreferredUsername, res.IDToken.TenantID, res.IDToken.Oid)
	}
	if want := res.IDToken.Oid + "." + emulator.ContosoTenant; res.Account.HomeAccountID != want {
		t.Errorf("got home account %q, want %q", res.Account.HomeAccountID, want)
	}
	account, err := c.Account(t.Context(), res.Account.HomeAccountID)
	if err != nil {
		t.Fatal(err)
	}
	for _, resource := range []string{partnerCenter, graph, arm} {
		next, err := c.AcquireTokenSilent(t.Context(), []string{resource + "/.default"}, confidential.WithSilentAccount(account))
		if err != nil {
			t.Fatalf("%s: %v", resource, err)
		}
		if next.AccessToken == res.AccessToken {
			t.Errorf("%s: the client did not renew an expired token", resource)
		}
		wantClaims(t, next.AccessToken, map[string]any{"aud": resource, "upn": admin})
	}
	e.Dial(func(d *emulator.Dials) { d.AccessTokenLifetime = 0 })
	kept, err := c.AcquireTokenSilent(t.Context(), []string{graph + "/Directory.Read.All"}, confidential.WithSilentAccount(account))
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.AcquireTokenSilent(t.Context(), []string{graph + "/Directory.Read.All"}, confidential.WithSilentAccount(account))
	if err != nil || again.AccessToken != kept.AccessToken {
		t.Errorf("the client did not keep its token: %v", err)
	}
}

// The partner's refresh token gets tokens in a customer's tenant.
func testMSALCustomer(t *testing.T) {
	e := start(t)
	c := msal(t, e, "contoso.example", secret(t, emulator.ApplicationSecret))
	res := signedIn(t, e, c)
	for _, customer := range []string{emulator.AdatumTenant, "litware.example"} {
		got, err := c.AcquireTokenSilent(t.Context(), []string{graph + "/.default"}, confidential.WithSilentAccount(res.Account), confidential.WithTenantID(customer))
		if err != nil {
			t.Fatalf("%s: %v", customer, err)
		}
		if tid := claims(t, got.AccessToken)["tid"]; tid == emulator.ContosoTenant {
			t.Errorf("%s: got a token of the partner's own tenant", customer)
		}
		if got.Account.HomeAccountID != res.Account.HomeAccountID {
			t.Errorf("%s: got home account %q, want %q", customer, got.Account.HomeAccountID, res.Account.HomeAccountID)
		}
	}
}

// A user's token for the application's own API becomes one for another.
func testMSALOnBehalfOf(t *testing.T) {
	e := start(t)
	consent(t, e)
	publish(t, e)
	c := msal(t, e, "contoso.example", secret(t, emulator.ApplicationSecret))
	user := signedInFor(t, e, c, api)
	wantClaims(t, user.AccessToken, map[string]any{"scp": "access_as_user", "upn": admin})
	for _, resource := range []string{graph, partnerCenter} {
		got, err := c.AcquireTokenOnBehalfOf(t.Context(), user.AccessToken, []string{resource + "/.default"})
		if err != nil {
			t.Fatalf("%s: %v", resource, err)
		}
		wantClaims(t, got.AccessToken, map[string]any{"aud": resource, "upn": admin, "appid": emulator.ApplicationID})
		kept, err := c.AcquireTokenOnBehalfOf(t.Context(), user.AccessToken, []string{resource + "/.default"})
		if err != nil || kept.AccessToken != got.AccessToken {
			t.Errorf("%s: the client did not keep its token: %v", resource, err)
		}
	}
	other, err := c.AcquireTokenSilent(t.Context(), []string{graph + "/.default"}, confidential.WithSilentAccount(user.Account))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.AcquireTokenOnBehalfOf(t.Context(), other.AccessToken, []string{arm + "/.default"}); !refusedWith(err, "AADSTS50013") {
		t.Errorf("a token for somebody else: got %v, want AADSTS50013", err)
	}
}

// A token of another issuer takes the place of a secret.
func testMSALFederated(t *testing.T) {
	e := start(t)
	token := federate(t, e)
	cred := confidential.NewCredFromAssertionCallback(func(context.Context, confidential.AssertionRequestOptions) (string, error) { return token, nil })
	got, err := msal(t, e, "adatum.example", cred).AcquireTokenByCredential(t.Context(), []string{graph + "/.default"})
	if err != nil {
		t.Fatal(err)
	}
	wantClaims(t, got.AccessToken, map[string]any{"tid": emulator.AdatumTenant, "idtyp": "app", "appidacr": "2"})
}

func testMSALRefusals(t *testing.T) {
	e := start(t)
	_, err := msal(t, e, "adatum.example", secret(t, "wrong")).AcquireTokenByCredential(t.Context(), []string{graph + "/.default"})
	if !refusedWith(err, "AADSTS7000215") {
		t.Errorf("a wrong secret: got %v", err)
	}
	_, err = msal(t, e, "wingtip.example", secret(t, emulator.ApplicationSecret)).AcquireTokenByCredential(t.Context(), []string{graph + "/.default"})
	if !refusedWith(err, "AADSTS700016") {
		t.Errorf("a tenant without the application: got %v", err)
	}
	c := msal(t, e, "contoso.example", secret(t, emulator.ApplicationSecret))
	res := signedIn(t, e, c)
	if err := e.Revoke(admin); err != nil {
		t.Fatal(err)
	}
	_, err = c.AcquireTokenSilent(t.Context(), []string{graph + "/.default"}, confidential.WithSilentAccount(res.Account))
	if !refusedWith(err, "AADSTS50173") {
		t.Errorf("after the revocation: got %v", err)
	}
}

func testAzidentity(t *testing.T) {
	ran(t, "github.com/Azure/azure-sdk-for-go/sdk/azidentity")
	e := start(t)
	cert, key := certificate(t, e)
	withSecret := func(tenant, value string) (*azidentity.ClientSecretCredential, error) {
		return azidentity.NewClientSecretCredential(tenant, emulator.ApplicationID, value, &azidentity.ClientSecretCredentialOptions{
			ClientOptions: azure(e), DisableInstanceDiscovery: true, AdditionallyAllowedTenants: []string{"*"}})
	}
	t.Run("ClientSecret", func(t *testing.T) {
		cred, err := withSecret(emulator.AdatumTenant, emulator.ApplicationSecret)
		if err != nil {
			t.Fatal(err)
		}
		for _, cae := range []bool{false, true} {
			got, err := cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{arm + "/.default"}, EnableCAE: cae})
			if err != nil {
				t.Fatal(err)
			}
			wantClaims(t, got.Token, map[string]any{"aud": arm, "tid": emulator.AdatumTenant, "appidacr": "1"})
			if long := time.Until(got.ExpiresOn) > 20*time.Hour; long != cae {
				t.Errorf("with CAE %t: the token expires in %v", cae, time.Until(got.ExpiresOn))
			}
		}
		other, err := cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{arm + "/.default"}, TenantID: emulator.LitwareTenant})
		if err != nil {
			t.Fatal(err)
		}
		wantClaims(t, other.Token, map[string]any{"tid": emulator.LitwareTenant})
	})
	t.Run("ClientCertificate", func(t *testing.T) {
		for _, chain := range []bool{false, true} {
			cred, err := azidentity.NewClientCertificateCredential(emulator.AdatumTenant, emulator.ApplicationID, []*x509.Certificate{cert}, key, &azidentity.ClientCertificateCredentialOptions{
				ClientOptions: azure(e), DisableInstanceDiscovery: true, SendCertificateChain: chain})
			if err != nil {
				t.Fatal(err)
			}
			got, err := cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{graph + "/.default"}})
			if err != nil {
				t.Fatalf("with chain %t: %v", chain, err)
			}
			wantClaims(t, got.Token, map[string]any{"appidacr": "2"})
		}
	})
	t.Run("DeviceCode", func(t *testing.T) {
		addDevice(t, e)
		var shown azidentity.DeviceCodeMessage
		var person sync.WaitGroup
		cred, err := azidentity.NewDeviceCodeCredential(&azidentity.DeviceCodeCredentialOptions{
			ClientOptions: azure(e), DisableInstanceDiscovery: true, TenantID: emulator.ContosoTenant, ClientID: device,
			UserPrompt: func(_ context.Context, m azidentity.DeviceCodeMessage) error {
				shown = m
				person.Go(func() {
					time.Sleep(300 * time.Millisecond) // the client asks in vain at first
					newBrowser(t, e).enterCode(m.VerificationURL, m.UserCode, admin)
				})
				return nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		got, err := cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{graph + "/.default"}})
		if err != nil {
			t.Fatal(err)
		}
		person.Wait()
		if !slices.ContainsFunc(e.TokenRequests(), func(r emulator.TokenRequest) bool { return r.Error == 70016 }) {
			t.Error("the client never asked in vain")
		}
		wantClaims(t, got.Token, map[string]any{"upn": admin, "appid": device, "appidacr": "0"})
		if !strings.Contains(shown.Message, shown.UserCode) || !strings.Contains(shown.Message, shown.VerificationURL) {
			t.Errorf("got message %q", shown.Message)
		}
		shown = azidentity.DeviceCodeMessage{}
		other, err := cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{arm + "/.default"}})
		if err != nil || shown.UserCode != "" {
			t.Fatalf("asked again: %t; %v", shown.UserCode != "", err)
		}
		wantClaims(t, other.Token, map[string]any{"aud": arm, "upn": admin})
	})
	t.Run("WorkloadIdentity", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(file, []byte(federate(t, e)), 0o600); err != nil {
			t.Fatal(err)
		}
		cred, err := azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{
			ClientOptions: azure(e), DisableInstanceDiscovery: true, TenantID: emulator.AdatumTenant, ClientID: emulator.ApplicationID, TokenFilePath: file,
		})
		if err != nil {
			t.Fatal(err)
		}
		got, err := cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{arm + "/.default"}})
		if err != nil {
			t.Fatal(err)
		}
		wantClaims(t, got.Token, map[string]any{"tid": emulator.AdatumTenant, "idtyp": "app"})
	})
	t.Run("refusal", func(t *testing.T) {
		cred, err := withSecret(emulator.AdatumTenant, "wrong")
		if err != nil {
			t.Fatal(err)
		}
		_, err = cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{graph + "/.default"}})
		var failed *azidentity.AuthenticationFailedError
		if !errors.As(err, &failed) || failed.RawResponse.StatusCode != http.StatusUnauthorized || !strings.Contains(err.Error(), "AADSTS7000215") {
			t.Errorf("got %v", err)
		}
	})
}

// go-oidc finds the keys of an issuer, of either version, and verifies ID
// tokens with them; its companion redeems the codes.
func testOIDC(t *testing.T) {
	ran(t, "github.com/coreos/go-oidc/v3")
	e := start(t)
	ctx := oidc.ClientContext(context.WithValue(t.Context(), oauth2.HTTPClient, client(e)), client(e))
	for version, issuer := range map[string]string{"v1": "/", "v2": "/v2.0"} {
		t.Run(version, func(t *testing.T) {
			provider, err := oidc.NewProvider(ctx, e.Endpoints().Login+"/"+emulator.ContosoTenant+issuer)
			if err != nil {
				t.Fatal(err)
			}
			raw := oidcSignIn(ctx, t, e, provider, version)
			id, err := provider.Verifier(&oidc.Config{ClientID: emulator.ApplicationID}).Verify(ctx, raw)
			if err != nil {
				t.Fatal(err)
			}
			if id.Nonce != "interop" || id.Subject == "" {
				t.Errorf("got nonce %q, subject %q", id.Nonce, id.Subject)
			}
			anywhere, err := oidc.NewProvider(oidc.InsecureIssuerURLContext(ctx, e.Endpoints().Login+"/"+emulator.ContosoTenant+issuer), e.Endpoints().Login+"/common"+strings.TrimSuffix(issuer, "/"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := anywhere.Verifier(&oidc.Config{ClientID: emulator.ApplicationID}).Verify(ctx, raw); err != nil {
				t.Errorf("with the keys of all tenants: %v", err)
			}
			spoiled := raw[:len(raw)-10] + "AAAAAAAAAA"
			if _, err := provider.Verifier(&oidc.Config{ClientID: emulator.ApplicationID}).Verify(ctx, spoiled); err == nil {
				t.Error("a spoiled signature verifies")
			}
			if _, err := provider.Verifier(&oidc.Config{ClientID: "another"}).Verify(ctx, raw); err == nil {
				t.Error("a token for somebody else verifies")
			}
		})
	}
}

// oidcSignIn signs admin in, with PKCE and a nonce, and returns the ID token.
func oidcSignIn(ctx context.Context, t *testing.T, e *emulator.Emulator, provider *oidc.Provider, version string) string {
	t.Helper()
	cfg := oauth2.Config{ClientID: emulator.ApplicationID, ClientSecret: emulator.ApplicationSecret, RedirectURL: redirect, Endpoint: provider.Endpoint()}
	verifier := oauth2.GenerateVerifier()
	ask := []oauth2.AuthCodeOption{oidc.Nonce("interop"), oauth2.S256ChallengeOption(verifier)}
	redeem := []oauth2.AuthCodeOption{oauth2.VerifierOption(verifier)}
	if version == "v1" {
		resource := oauth2.SetAuthURLParam("resource", graph)
		ask, redeem = append(ask, resource), append(redeem, resource)
	} else {
		cfg.Scopes = []string{oidc.ScopeOpenID, oidc.ScopeOfflineAccess, "User.Read"}
	}
	back := newBrowser(t, e).signIn(cfg.AuthCodeURL("a state", ask...), admin)
	if back.Query().Get("state") != "a state" {
		t.Fatalf("got back %v", url.Values(back.Query()))
	}
	token, err := cfg.Exchange(ctx, back.Query().Get("code"), redeem...)
	if err != nil {
		t.Fatal(err)
	}
	if token.RefreshToken == "" || time.Until(token.Expiry) < 30*time.Minute {
		t.Errorf("got refresh token %q, expiry %v", token.RefreshToken, token.Expiry)
	}
	raw, _ := token.Extra("id_token").(string)
	return raw
}
