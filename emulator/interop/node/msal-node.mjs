import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import * as msal from '@azure/msal-node';
import { claims, emulator, enterCode, resources, revoke, run, signIn } from './emulator.mjs';

const authority = (tenant) => ({
  clientId: emulator.client,
  authority: `${emulator.login}/${tenant}`,
  knownAuthorities: [new URL(emulator.login).host],
});
const confidential = (tenant, credential = { clientSecret: emulator.secret }) =>
  new msal.ConfidentialClientApplication({ auth: { ...authority(tenant), ...credential } });

const graph = [`${resources.graph}/.default`];
const partnerCenter = [`${resources.partnerCenter}/user_impersonation`];

// signedIn has the administrator sign in with PKCE, and redeems the code.
async function signedIn(app, scopes = partnerCenter) {
  const { verifier, challenge } = await new msal.CryptoProvider().generatePkceCodes();
  const request = { scopes, redirectUri: emulator.redirect, state: 'a state', nonce: 'a nonce' };
  const back = new URL(await signIn(await app.getAuthCodeUrl({ ...request, codeChallenge: challenge, codeChallengeMethod: 'S256' })));
  assert.equal(back.searchParams.get('state'), 'a state');
  const code = back.searchParams.get('code');
  await assert.rejects(app.acquireTokenByCode({ ...request, code, codeVerifier: challenge }), /AADSTS501481/);
  return app.acquireTokenByCode({ ...request, code, codeVerifier: verifier });
}

const refreshToken = (app) => Object.values(JSON.parse(app.getTokenCache().serialize()).RefreshToken)[0].secret;

await run('@azure/msal-node', {
  async secret() {
    const app = confidential(emulator.adatum);
    const got = await app.acquireTokenByClientCredential({ scopes: graph });
    assert.equal(claims(got.accessToken).tid, emulator.adatum);
    assert.equal(claims(got.accessToken).appidacr, '1');
    const kept = await app.acquireTokenByClientCredential({ scopes: graph });
    assert.ok(kept.fromCache);
  },

  async certificate() {
    const sum = (name) => new X509Certificate(emulator.certificate)[name].replaceAll(':', '');
    for (const thumbprint of [{ thumbprintSha256: sum('fingerprint256') }, { thumbprint: sum('fingerprint') }]) {
      for (const chain of [{}, { x5c: emulator.certificate }]) {
        const app = confidential('adatum.example', { clientCertificate: { privateKey: emulator.key, ...thumbprint, ...chain } });
        const got = await app.acquireTokenByClientCredential({ scopes: graph });
        assert.equal(claims(got.accessToken).appidacr, '2');
      }
    }
  },

  async 'code with PKCE'() {
    const app = confidential('contoso.example');
    const got = await signedIn(app);
    assert.equal(got.account.username, emulator.admin);
    assert.equal(got.account.tenantId, emulator.contoso);
    assert.equal(got.account.homeAccountId, `${got.idTokenClaims.oid}.${emulator.contoso}`);
    assert.equal(got.idTokenClaims.nonce, 'a nonce');
    assert.equal(claims(got.accessToken).aud, resources.partnerCenter);
    assert.ok(got.expiresOn - Date.now() > 50 * 60_000);
  },

  async 'code at organizations'() {
    const got = await signedIn(confidential('organizations'));
    assert.equal(got.tenantId, emulator.contoso);
  },

  async refresh() {
    const app = confidential('contoso.example');
    const { account, accessToken } = await signedIn(app);
    const silent = await app.acquireTokenSilent({ account, scopes: partnerCenter });
    assert.equal(silent.accessToken, accessToken);
    const renewed = await app.acquireTokenSilent({ account, scopes: partnerCenter, forceRefresh: true });
    assert.notEqual(renewed.accessToken, accessToken);
    const other = await app.acquireTokenSilent({ account, scopes: [`${resources.arm}/.default`] });
    assert.equal(claims(other.accessToken).aud, resources.arm);
  },

  async 'refresh token of somebody else’s store, in a customer’s tenant'() {
    const app = confidential('contoso.example');
    await signedIn(app);
    const got = await confidential(emulator.adatum).acquireTokenByRefreshToken({ refreshToken: refreshToken(app), scopes: graph });
    assert.equal(claims(got.accessToken).tid, emulator.adatum);
    assert.equal(claims(got.accessToken).upn, emulator.admin);
  },

  async 'on behalf of'() {
    const app = confidential('contoso.example');
    const { accessToken: oboAssertion } = await signedIn(app, [emulator.api]);
    assert.equal(claims(oboAssertion).scp, 'access_as_user');
    const got = await app.acquireTokenOnBehalfOf({ oboAssertion, scopes: graph });
    assert.equal(claims(got.accessToken).aud, resources.graph);
    assert.equal(claims(got.accessToken).upn, emulator.admin);
    const kept = await app.acquireTokenOnBehalfOf({ oboAssertion, scopes: graph });
    assert.ok(kept.fromCache);
    await assert.rejects(app.acquireTokenOnBehalfOf({ oboAssertion: got.accessToken, scopes: partnerCenter }), /AADSTS50013/);
  },

  async 'device code'() {
    const app = new msal.PublicClientApplication({ auth: { ...authority(emulator.contoso), clientId: emulator.device } });
    const got = await app.acquireTokenByDeviceCode({
      scopes: graph,
      deviceCodeCallback: (shown) => {
        assert.ok(shown.message.includes(shown.userCode));
        enterCode(shown.verificationUri, shown.userCode);
      },
    });
    assert.equal(claims(got.accessToken).upn, emulator.admin);
    assert.equal(claims(got.accessToken).appidacr, '0');
    const other = await app.acquireTokenSilent({ account: got.account, scopes: [`${resources.arm}/.default`] });
    assert.equal(claims(other.accessToken).aud, resources.arm);
  },

  async federated() {
    const app = confidential(emulator.adatum, { clientAssertion: readFileSync(emulator.token_file, 'utf8') });
    const got = await app.acquireTokenByClientCredential({ scopes: graph });
    assert.equal(claims(got.accessToken).tid, emulator.adatum);
  },

  async refusals() {
    const wrong = confidential(emulator.adatum, { clientSecret: 'wrong' });
    await assert.rejects(wrong.acquireTokenByClientCredential({ scopes: graph }), (err) =>
      err instanceof msal.AuthError && err.errorCode === 'invalid_client' && err.errorMessage.includes('AADSTS7000215'));
    const app = confidential('contoso.example');
    const { account } = await signedIn(app);
    await revoke();
    await assert.rejects(app.acquireTokenSilent({ account, scopes: partnerCenter, forceRefresh: true }), (err) =>
      err instanceof msal.InteractionRequiredAuthError && err.subError === 'bad_token' && err.errorMessage.includes('AADSTS50173'));
  },
});
