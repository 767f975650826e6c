import assert from 'node:assert/strict';
import { ClientSecretCredential } from '@azure/identity';
import { SecretClient } from '@azure/keyvault-secrets';
import { emulator, run } from './emulator.mjs';

const credential = new ClientSecretCredential(emulator.contoso, emulator.vault_client, emulator.vault_secret,
  { authorityHost: emulator.login, disableInstanceDiscovery: true });
const quick = { intervalInMs: 10 };
const vault = new SecretClient(emulator.vault, credential, { disableChallengeResourceVerification: true, retryOptions: { maxRetries: 0 } });

async function names(list) {
  const all = [];
  for await (const item of list) all.push(item.name);
  return all;
}

const refused = (statusCode, code) => (err) => err.statusCode === statusCode && err.code === code;

await run('@azure/keyvault-secrets', {
  async 'versions, attributes and tags'() {
    const expiresOn = new Date('2030-01-02T03:04:05Z');
    const first = await vault.setSecret('Grant', 'one', { contentType: 'text/plain', tags: { partner: 'contoso' }, expiresOn });
    assert.equal(first.properties.vaultUrl, emulator.vault);
    assert.equal(first.properties.contentType, 'text/plain');
    assert.deepEqual(first.properties.expiresOn, expiresOn);
    await vault.setSecret('Grant', 'two');
    assert.equal((await vault.getSecret('Grant')).value, 'two');
    assert.equal((await vault.getSecret('grant', { version: first.properties.version })).value, 'one');
    assert.equal((await names(vault.listPropertiesOfSecretVersions('Grant'))).length, 2);
    const changed = await vault.updateSecretProperties('Grant', first.properties.version, { tags: { partner: 'fabrikam' }, enabled: false });
    assert.deepEqual([changed.enabled, changed.tags.partner], [false, 'fabrikam']);
    await assert.rejects(vault.getSecret('Grant', { version: first.properties.version }), refused(403, 'Forbidden'));
    await assert.rejects(vault.getSecret('no-such-secret'), refused(404, 'SecretNotFound'));
  },

  async 'pages'() {
    for (let i = 0; i < 7; i++) await vault.setSecret(`page-${i}`, 'x');
    let pages = 0;
    const all = [];
    for await (const page of vault.listPropertiesOfSecrets().byPage({ maxPageSize: 3 })) {
      pages++;
      all.push(...page.map((item) => item.name));
    }
    assert.ok(pages >= 3, `got ${pages} pages`);
    assert.equal(all.filter((name) => name.startsWith('page-')).length, 7);
  },

  async 'deletion, recovery and purge'() {
    await vault.setSecret('Gone', 'value');
    const deleted = await (await vault.beginDeleteSecret('Gone', quick)).pollUntilDone();
    assert.ok(deleted.recoveryId.startsWith(emulator.vault));
    assert.ok(deleted.scheduledPurgeDate > deleted.deletedOn);
    await assert.rejects(vault.getSecret('Gone'), refused(404, 'SecretNotFound'));
    await assert.rejects(vault.setSecret('Gone', 'again'), refused(409, 'Conflict'));
    assert.ok((await names(vault.listDeletedSecrets())).includes('Gone'));
    assert.equal((await vault.getDeletedSecret('Gone')).name, 'Gone');
    await (await vault.beginRecoverDeletedSecret('Gone', quick)).pollUntilDone();
    assert.equal((await vault.getSecret('Gone')).value, 'value');
    const backup = await vault.backupSecret('Gone');
    await (await vault.beginDeleteSecret('Gone', quick)).pollUntilDone();
    await vault.purgeDeletedSecret('Gone');
    await assert.rejects(vault.getDeletedSecret('Gone'), refused(404, 'SecretNotFound'));
    await vault.restoreSecretBackup(backup);
    assert.equal((await vault.getSecret('Gone')).value, 'value');
  },

  async 'the vault’s name against the challenge'() {
    const named = new URL(emulator.vault);
    named.hostname = `${emulator.vault_name}.vault.localhost`;
    const verifying = new SecretClient(named.href, credential, { retryOptions: { maxRetries: 0 } });
    const set = await verifying.setSecret('verified', 'value');
    assert.equal(new URL(set.properties.id).host, named.host);
    await assert.rejects(new SecretClient(emulator.vault, credential).getSecret('verified'), /does not match/);
  },

  async 'another tenant’s token'() {
    const stranger = new ClientSecretCredential(emulator.adatum, emulator.client, emulator.secret, { authorityHost: emulator.login, disableInstanceDiscovery: true });
    const closed = new SecretClient(emulator.vault, stranger, { disableChallengeResourceVerification: true, retryOptions: { maxRetries: 0 } });
    await assert.rejects(closed.getSecret('Grant'), /tenant/);
  },
});
