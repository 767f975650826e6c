import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import {
  AuthenticationRequiredError, AuthorizationCodeCredential, ClientCertificateCredential, ClientSecretCredential,
  DeviceCodeCredential, OnBehalfOfCredential, WorkloadIdentityCredential,
} from '@azure/identity';
import { claims, emulator, enterCode, resources, run, signIn } from './emulator.mjs';

const options = { authorityHost: emulator.login, disableInstanceDiscovery: true, additionallyAllowedTenants: ['*'], retryOptions: { maxRetries: 0 } };
const arm = `${resources.arm}/.default`;

// code has the administrator sign in; the library leaves that to its users.
async function code(scope) {
  const authorize = new URL(`${emulator.login}/${emulator.contoso}/oauth2/v2.0/authorize`);
  authorize.search = new URLSearchParams({
    client_id: emulator.client, response_type: 'code', redirect_uri: emulator.redirect, scope: `openid profile offline_access ${scope}`,
  });
  return new URL(await signIn(authorize)).searchParams.get('code');
}

function pemFile() {
  const name = `${emulator.token_file}.pem`;
  writeFileSync(name, emulator.certificate + emulator.key);
  return name;
}

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
    const credential = new AuthorizationCodeCredential(emulator.contoso, emulator.client, emulator.secret, await code(arm), emulator.redirect, options);
    for (const resource of [resources.arm, resources.graph]) {
      const { token } = await credential.getToken(`${resource}/.default`);
      assert.equal(claims(token).upn, emulator.admin);
      assert.equal(claims(token).aud, resource);
    }
  },

  async OnBehalfOfCredential() {
    const user = new AuthorizationCodeCredential(emulator.contoso, emulator.client, emulator.secret, await code(emulator.api), emulator.redirect, options);
    const { token: userAssertionToken } = await user.getToken(emulator.api);
    const who = { tenantId: emulator.contoso, clientId: emulator.client, userAssertionToken };
    for (const credential of [{ clientSecret: emulator.secret }, { certificatePath: pemFile() }]) {
      const { token } = await new OnBehalfOfCredential({ ...who, ...credential, ...options }).getToken(arm);
      assert.equal(claims(token).upn, emulator.admin);
      assert.equal(claims(token).aud, resources.arm);
    }
  },

  async DeviceCodeCredential() {
    const credential = new DeviceCodeCredential({
      ...options, tenantId: emulator.contoso, clientId: emulator.device,
      userPromptCallback: (shown) => enterCode(shown.verificationUri, shown.userCode),
    });
    assert.equal(claims((await credential.getToken(arm)).token).upn, emulator.admin);
  },

  async WorkloadIdentityCredential() {
    const credential = new WorkloadIdentityCredential({
      ...options, tenantId: emulator.adatum, clientId: emulator.client, tokenFilePath: emulator.token_file,
    });
    assert.equal(claims((await credential.getToken(arm)).token).tid, emulator.adatum);
  },

  async refusals() {
    const wrong = new ClientSecretCredential(emulator.adatum, emulator.client, 'wrong', options);
    await assert.rejects(wrong.getToken(arm), (err) =>
      err instanceof AuthenticationRequiredError && err.message.includes('AADSTS7000215'));
    const unknown = new ClientSecretCredential(emulator.wingtip, emulator.client, emulator.secret, options);
    await assert.rejects(unknown.getToken(arm), /AADSTS700016/);
  },
});
