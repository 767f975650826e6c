import assert from 'node:assert/strict';
import { AuthorizationCodeCredential, ClientSecretCredential } from '@azure/identity';
import { Client, GraphError, PageIterator } from '@microsoft/microsoft-graph-client';
import { TokenCredentialAuthenticationProvider } from '@microsoft/microsoft-graph-client/authProviders/azureTokenCredentials/index.js';
import { emulator, resources, run, signIn } from './emulator.mjs';

const scope = `${resources.graph}/.default`;
const authorize = new URL(`${emulator.login}/${emulator.contoso}/oauth2/v2.0/authorize`);
authorize.search = new URLSearchParams({
  client_id: emulator.client, response_type: 'code', redirect_uri: emulator.redirect, scope: `openid profile offline_access ${scope}`,
});
const code = new URL(await signIn(authorize)).searchParams.get('code');
const options = { authorityHost: emulator.login, disableInstanceDiscovery: true };
const credential = new AuthorizationCodeCredential(emulator.contoso, emulator.client, emulator.secret, code, emulator.redirect, options);
const graph = Client.initWithMiddleware({
  authProvider: new TokenCredentialAuthenticationProvider(credential, { scopes: [scope] }),
  baseUrl: emulator.graph, customHosts: new Set(['localhost']),
});

await run('@microsoft/microsoft-graph-client', {
  async me() {
    const me = await graph.api('/me').get();
    assert.equal(me.userPrincipalName, emulator.admin);
    assert.equal(me['@odata.context'], `${resources.graph}/v1.0/$metadata#users/$entity`);
  },

  async organization() {
    const { value } = await graph.api('/organization').get();
    assert.equal(value[0].id, emulator.contoso);
  },

  async users() {
    const seen = [];
    await new PageIterator(graph, await graph.api('/users').top(2).get(), (user) => seen.push(user.userPrincipalName)).iterate();
    assert.ok(seen.includes(emulator.admin));
    assert.ok(seen.length > 2);
  },

  async memberOf() {
    const { value } = await graph.api('/me/memberOf').get();
    assert.deepEqual(value.map((object) => [object['@odata.type'], object.displayName]), [
      ['#microsoft.graph.group', 'AdminAgents'], ['#microsoft.graph.directoryRole', 'Global Administrator'],
    ]);
    const groups = await graph.api('/me/memberOf/microsoft.graph.group').get();
    assert.deepEqual(groups.value.map((group) => group.displayName), ['AdminAgents']);
  },

  async 'an application, its secret, and a token for it'() {
    const app = await graph.api('/applications').post({ displayName: 'Made by a client', signInAudience: 'AzureADMultipleOrgs' });
    await graph.api('/servicePrincipals').post({ appId: app.appId });
    const { value } = await graph.api('/applications').filter(`appId eq '${app.appId}'`).get();
    assert.deepEqual(value.map((found) => found.id), [app.id]);
    const password = await graph.api(`/applications/${app.id}/addPassword`).post({ passwordCredential: { displayName: 'first' } });
    const own = new ClientSecretCredential(emulator.contoso, app.appId, password.secretText, options);
    assert.ok((await own.getToken(scope)).token);
    await graph.api(`/applications/${app.id}/removePassword`).post({ keyId: password.keyId });
    const late = new ClientSecretCredential(emulator.contoso, app.appId, password.secretText, options);
    await assert.rejects(late.getToken(scope), /AADSTS7000215/);
  },

  async refusals() {
    await assert.rejects(graph.api('/no-such-thing').get(), (err) =>
      err instanceof GraphError && err.statusCode === 400 && err.code === 'BadRequest' && err.requestId !== null);
    const nobody = Client.init({ authProvider: (done) => done(null, 'not-a-token'), baseUrl: emulator.graph, customHosts: new Set(['localhost']) });
    await assert.rejects(nobody.api('/me').get(), (err) =>
      err instanceof GraphError && err.statusCode === 401 && err.code === 'InvalidAuthenticationToken');
  },
});
