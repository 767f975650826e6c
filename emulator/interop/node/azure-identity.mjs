import assert from 'node:assert/strict';
import {
  AuthenticationRequiredError, AuthorizationCodeCredential, ClientCertificateCredential, ClientSecretCredential,
} from '@azure/identity';
import { claims, emulator, resources, run, signIn } from './emulator.mjs';

const options = { authorityHost: emulator.login, disableInstanceDiscovery: true, additionallyAllowedTenants: ['*'], retryOptions: { maxRetries: 0 } };
const arm = `${resources.arm}/.default`;

await run('@azure/identity', {
  async ClientSecretCredential() {
    const credential = new ClientSecretCredential(emulator.adatum, emulator.client, emulator.secret, options);
    const got = await credential.getToken(arm);
    assert.equal(claims(got.token).aud, resources.arm);
    assert.equal(claims(got.token).tid, emulator.adatum);
    assert.equal((await credential.getToken(arm)).token, got.token);
    const long = await credential.getToken(arm, { enableCae: true });
    assert.ok(long.expiresOnTimestamp - Date.now() > 20 * 3600_000);
    const partner = new ClientSecretCredential(emulator.wingtip, emulator.client, emulator.secret, options);
    const other = await partner.getToken(arm, { tenantId: emulator.adatum });
    assert.equal(claims(other.token).tid, emulator.adatum);
  },

  async ClientCertificateCredential() {
    for (const sendCertificateChain of [false, true]) {
      const pem = { certificate: emulator.certificate + emulator.key };
      const credential = new ClientCertificateCredential(emulator.adatum, emulator.client, pem, { ...options, sendCertificateChain });
      assert.equal(claims((await credential.getToken(arm)).token).appidacr, '2');
    }
  },

  async AuthorizationCodeCredential() {
    const authorize = new URL(`${emulator.login}/${emulator.contoso}/oauth2/v2.0/authorize`);
    authorize.search = new URLSearchParams({
      client_id: emulator.client, response_type: 'code', redirect_uri: emulator.redirect, scope: `openid profile offline_access ${arm}`,
    });
    const code = new URL(await signIn(authorize)).searchParams.get('code');
    const credential = new AuthorizationCodeCredential(emulator.contoso, emulator.client, emulator.secret, code, emulator.redirect, options);
    for (const resource of [resources.arm, resources.graph]) {
      const { token } = await credential.getToken(`${resource}/.default`);
      assert.equal(claims(token).upn, emulator.admin);
      assert.equal(claims(token).aud, resource);
    }
  },

  async refusals() {
    const wrong = new ClientSecretCredential(emulator.adatum, emulator.client, 'wrong', options);
    await assert.rejects(wrong.getToken(arm), (err) =>
      err instanceof AuthenticationRequiredError && err.message.includes('AADSTS7000215'));
    const unknown = new ClientSecretCredential(emulator.wingtip, emulator.client, emulator.secret, options);
    await assert.rejects(unknown.getToken(arm), /AADSTS700016/);
  },
});
