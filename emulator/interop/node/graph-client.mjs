import assert from 'node:assert/strict';
import { AuthorizationCodeCredential } from '@azure/identity';
import { Client, GraphError, PageIterator } from '@microsoft/microsoft-graph-client';
import { TokenCredentialAuthenticationProvider } from '@microsoft/microsoft-graph-client/authProviders/azureTokenCredentials/index.js';
import { emulator, resources, run, signIn } from './emulator.mjs';

const scope = `${resources.graph}/.default`;
const authorize = new URL(`${emulator.login}/${emulator.contoso}/oauth2/v2.0/authorize`);
authorize.search = new URLSearchParams({
  client_id: emulator.client, response_type: 'code', redirect_uri: emulator.redirect, scope: `openid profile offline_access ${scope}`,
});
const code = new URL(await signIn(authorize)).searchParams.get('code');
const credential = new AuthorizationCodeCredential(emulator.contoso, emulator.client, emulator.secret, code, emulator.redirect,
  { authorityHost: emulator.login, disableInstanceDiscovery: true });
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
    await new PageIterator(graph, await graph.api('/users').get(), (user) => seen.push(user.userPrincipalName)).iterate();
    assert.ok(seen.includes(emulator.admin));
  },

  async memberOf() {
    const { value } = await graph.api('/me/memberOf').get();
    assert.deepEqual(value.map((group) => group.displayName), ['AdminAgents']);
  },

  async refusals() {
    await assert.rejects(graph.api('/no-such-thing').get(), (err) =>
      err instanceof GraphError && err.statusCode === 400 && err.code === 'BadRequest' && err.requestId !== null);
    const nobody = Client.init({ authProvider: (done) => done(null, 'not-a-token'), baseUrl: emulator.graph, customHosts: new Set(['localhost']) });
    await assert.rejects(nobody.api('/me').get(), (err) =>
      err instanceof GraphError && err.statusCode === 401 && err.code === 'InvalidAuthenticationToken');
  },
});
