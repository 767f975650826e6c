// Package emulator is a stand-in for the Microsoft side of the Secure
// Application Model: Entra ID, Partner Center, Graph, Azure Resource Manager
// and Key Vault, on loopback, with its own certificate authority.
//
//	func TestMine(t *testing.T) {
//		e := emulator.Start(t)
//		client := mine.New(e.Endpoints().Login, e.Client())
//
// It ends with the test. [Open] is for whoever is not one, and
// [Config.InMemory] for tests in a bubble of testing/synctest.
//
// It is stricter than production and forgetful on purpose: all state is in
// memory and lost at exit, and keys are new at every start. It is written from
// Microsoft's public documentation and shares no code with the clients of this
// module, so that a misreading is not shared either. It is not made by or for
// Microsoft, and none of its pages looks as if it were.
//
// # Fixture
//
// One control panel vendor (Northwind Panels) with a multi-tenant application
// ([ApplicationID]), two partners (contoso.example, fabrikam.example) and five
// customers. Each partner has the users
//
//	admin@, admin2@  AdminAgents, Global Administrator, second factor
//	sales@           SalesAgents, may consent, second factor
//	helpdesk@        HelpdeskAgents, may not consent (90094), second factor
//	nomfa@           AdminAgents, Global Administrator, no second factor
//	tech@            no agent group, may consent, second factor
//	guest@adventure-works.example   a guest in AdminAgents
//
// and each customer owner@, ines@ and omar@. The application is consented in
// every customer but Wingtip, and in no partner. Only a partner's AdminAgents
// reach its customers.
//
// # Vaults
//
// Every vault is at a port of its own ([Emulator.Vault], [Emulator.AddVault]),
// for localhost has no names below it that resolve everywhere. It takes tokens
// of its tenant for https://vault.azure.net, and for its own URL. Until it is
// given access policies ([Emulator.SetVaultPolicies]) everybody in the tenant
// may do everything.
//
// Azure's clients check that the vault's host name ends in the name that its
// challenge says. Switch that off (DisableChallengeResourceVerification or
// what it is called there), or reach the vault as NAME.vault.localhost:PORT:
// its certificate is for that name too, and its challenge then names
// https://vault.localhost:PORT. A seed does not repeat keys, nor what is
// encrypted and signed with them.
//
// # Identity platform
//
// Both dialects, v1 (/oauth2/…) and v2 (/oauth2/v2.0/…), have the grants
// authorization_code (with and without PKCE), refresh_token,
// client_credentials, device_code (also by its long name) and on-behalf-of;
// admin consent (/adminconsent, /v2.0/adminconsent), sign-out (/oauth2/logout)
// and discovery. What a registration ([Application]) does not allow is refused
// as Entra does; off until said otherwise are
//
//	public                 device codes, and no credential (7000218)
//	spa_redirect_uris      codes without credential; refresh tokens end after a day (700084)
//	issue_id_tokens        response_type "code id_token" and "id_token" (700054)
//	issue_access_tokens    response_type "id_token token" (700054)
//	federated_credentials  other issuers' tokens as client assertions (70021, 700211 to 700213)
//	exposes                permissions of the application's own API, api://ID; what
//	                       is issued for it may be exchanged on behalf of the user
//	app_roles              roles of that API, in the claim roles: of applications, by an administrator's
//	                       consent to what their access asks for, and of users ([Emulator.AssignRoles])
//	single_tenant          not at common (50194), nor in other tenants (700016)
//
// A redirect URI is compared letter by letter, but for the port of
// http://localhost and http://127.0.0.1. A refresh token comes along if the
// sign-in, or the redemption of its code, asked for offline_access, and always
// in exchange for another one.
//
// The errors are listed in docs/emulator-errors.md.
//
// # Pages
//
// A sign-in starts at /{tenant}/oauth2/authorize or /oauth2/v2.0/authorize, at
// an admin consent address, or at /devicelogin with the code that a device
// shows, and goes through pages at /signin/{id}. Every form posts to the page's own
// address and is answered with 303 to the next page, or with the way back to
// the application. A page appears only if there is something to ask; its main
// element has the id page-NAME:
//
//	page-account    form#account        button name=account value=<UPN>
//	                form#account-other  input#other name=account
//	page-signin     form#signin         button#signin-yes name=signin value=yes, button#signin-other value=other
//	page-mfa        form#mfa            input#otp name=otp; #otp-shown shows the code; button#mfa-verify;
//	                                    button#mfa-skip name=skip value=yes, unless the tenant demands MFA
//	page-consent    form#consent        button#consent-accept name=decision value=accept, button#consent-cancel
//	                                    value=cancel; input#organization name=organization value=yes (administrators)
//	page-approval   form#approval       button name=decision value=return: only an administrator may consent
//	page-form_post  form#form_post      submits itself; button#continue where scripts are off
//	page-device     form#device         input#user-code name=user_code; the end is page-device_done or
//	                                    page-device_declined, with #device-result
//	page-signed_out
//	page-error      #error-code, #error-text: nothing goes back to the application
//
// Cookies tie a sign-in to its browser, and remember it for the next one
// unless that asks for prompt=login or select_account.
//
// # Dials
//
// [Dials] make the cloud slow, strict, silent or wrong. They are turned in
// process ([Emulator.Dial]) or over the admin API, which also shows what no
// real cloud would: the numbers of refresh tokens. Its paths are under
// /emulator/ at the admin endpoint; every request but GET /emulator/health
// needs the header "X-Emulator-Admin: 1".
//
//	GET    /emulator/health
//	GET    /emulator/state?q=&limit=        seed, endpoints, tenants with users, applications
//	GET    /emulator/dials
//	PATCH  /emulator/dials                  what is not named stays; maps merge, lists are replaced
//	PUT    /emulator/applications/{id}      register
//	GET    /emulator/refresh-tokens
//	POST   /emulator/refresh-tokens/lookup  {"token"}
//	GET    /emulator/token-requests?limit=
//	POST   /emulator/revocations            {"user","password"}
//	POST   /emulator/consents               {"tenant","application","resource","scopes"}
//	DELETE /emulator/consents?tenant=&application=&resource=
//	POST   /emulator/tenants                as in a fixture
//	POST   /emulator/tenants/{tenant}/users as in a fixture
//	POST   /emulator/delegations            {"partner","customer","roles"}
//	DELETE /emulator/delegations?partner=&customer=
//	POST   /emulator/relationships/{id}/approval {"customer"}
//	DELETE /emulator/principals?tenant=&application=
//	GET    /emulator/vaults
//	POST   /emulator/vaults                 {"name","tenant"}
//	PUT    /emulator/vaults/{name}/policies {"policies":[{"principal","secrets","keys","certificates"}]}
//	POST   /emulator/hold                   hold the token endpoint's answers
//	DELETE /emulator/hold                   let them go
//	GET    /emulator/errors                 the table of errors
//	POST   /emulator/reset
package emulator
