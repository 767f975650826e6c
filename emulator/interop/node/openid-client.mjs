import assert from 'node:assert/strict';
import { createHash, webcrypto, X509Certificate } from 'node:crypto';
import * as client from 'openid-client';
import { claims, emulator, enterCode, resources, run, signIn } from './emulator.mjs';

const discover = (tenant, version, ...authentication) =>
  client.discovery(new URL(`${emulator.login}/${tenant}${version}`), emulator.client, ...authentication);

// signedIn signs the administrator in with PKCE, state and nonce, and redeems
// the code. The client verifies the ID token with the issuer's keys.
async function signedIn(config, ask, redeem) {
  client.enableNonRepudiationChecks(config);
  const verifier = client.randomPKCECodeVerifier();
  const expected = { pkceCodeVerifier: verifier, expectedState: client.randomState(), expectedNonce: client.randomNonce(), idTokenExpected: true };
  const authorize = client.buildAuthorizationUrl(config, {
    redirect_uri: emulator.redirect, state: expected.expectedState, nonce: expected.expectedNonce,
    code_challenge: await client.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256', ...ask,
  });
  return client.authorizationCodeGrant(config, new URL(await signIn(authorize)), expected, redeem);
}

await run('openid-client', {
  async 'v2: code with PKCE, refresh'() {
    const config = await discover(emulator.contoso, '/v2.0', emulator.secret);
    const got = await signedIn(config, { scope: `openid profile offline_access ${resources.graph}/User.Read` });
    assert.equal(got.claims().preferred_username, emulator.admin);
    assert.equal(got.token_type, 'bearer');
    assert.equal(typeof got.expires_in, 'number');
    const next = await client.refreshTokenGrant(config, got.refresh_token, { scope: `openid offline_access ${resources.arm}/user_impersonation` });
    assert.equal(claims(next.access_token).aud, resources.arm);
    assert.notEqual(next.refresh_token, got.refresh_token);
  },

  async 'v1: code with PKCE, refresh'() {
    const config = await discover(emulator.contoso, '/', emulator.secret);
    const resource = { resource: resources.partnerCenter };
    const got = await signedIn(config, resource, resource);
    assert.equal(got.claims().upn, emulator.admin);
    assert.ok(got.claims().amr.includes('mfa'));
    const next = await client.refreshTokenGrant(config, got.refresh_token, { resource: resources.graph });
    assert.equal(claims(next.access_token).aud, resources.graph);
  },

  async 'client credentials: secret in the body and in the header'() {
    for (const authentication of [client.ClientSecretPost(emulator.secret), client.ClientSecretBasic(emulator.secret)]) {
      const config = await discover(emulator.adatum, '/v2.0', undefined, authentication);
      const got = await client.clientCredentialsGrant(config, { scope: `${resources.graph}/.default` });
      assert.equal(claims(got.access_token).tid, emulator.adatum);
    }
  },

  async 'client credentials: certificate'() {
    const der = Buffer.from(emulator.key.replace(/-----[^-]+-----|\s/g, ''), 'base64');
    const key = await webcrypto.subtle.importKey('pkcs8', der, { name: 'RSA-PSS', hash: 'SHA-256' }, false, ['sign']);
    const thumbprint = createHash('sha256').update(new X509Certificate(emulator.certificate).raw).digest('base64url');
    const authentication = client.PrivateKeyJwt(key, {
      [client.modifyAssertion]: (header, payload) => {
        header['x5t#S256'] = thumbprint;
        payload.aud = `${emulator.login}/${emulator.adatum}/oauth2/v2.0/token`;
      },
    });
    const config = await discover(emulator.adatum, '/v2.0', undefined, authentication);
    const got = await client.clientCredentialsGrant(config, { scope: `${resources.graph}/.default` });
    assert.equal(claims(got.access_token).appidacr, '2');
  },

  async 'hybrid: the ID token of the authorization endpoint vouches for the code'() {
    const config = await discover(emulator.contoso, '/v2.0', emulator.secret);
    client.useCodeIdTokenResponseType(config);
    const got = await signedIn(config, { scope: `openid offline_access ${resources.graph}/User.Read`, response_mode: 'fragment' });
    assert.equal(got.claims().tid, emulator.contoso);
  },

  async 'device code'() {
    const config = await client.discovery(new URL(`${emulator.login}/${emulator.contoso}/v2.0`), emulator.device, undefined, client.None());
    const shown = await client.initiateDeviceAuthorization(config, { scope: `openid profile ${resources.graph}/User.Read` });
    assert.equal(typeof shown.expires_in, 'number');
    const waiting = client.pollDeviceAuthorizationGrant(config, shown);
    await enterCode(shown.verification_uri, shown.user_code);
    const got = await waiting;
    assert.equal(got.claims().preferred_username, emulator.admin);
  },

  async refusal() {
    const config = await discover(emulator.adatum, '/v2.0', 'wrong');
    await assert.rejects(client.clientCredentialsGrant(config, { scope: `${resources.graph}/.default` }), (err) =>
      err instanceof client.ResponseBodyError && err.error === 'invalid_client' && err.status === 401 && err.error_description.startsWith('AADSTS7000215'));
  },
});
