import assert from 'node:assert/strict';
import { createHash, createPrivateKey, randomBytes } from 'node:crypto';
import { ClientSecretCredential } from '@azure/identity';
import { CryptographyClient, KeyClient } from '@azure/keyvault-keys';
import { emulator, run } from './emulator.mjs';

const credential = new ClientSecretCredential(emulator.contoso, emulator.vault_client, emulator.vault_secret,
  { authorityHost: emulator.login, disableInstanceDiscovery: true });
const options = { disableChallengeResourceVerification: true, retryOptions: { maxRetries: 0 } };
const quick = { intervalInMs: 10 };
const vault = new KeyClient(emulator.vault, credential, options);
const digest = createHash('sha256').update('a message').digest();
const secret = randomBytes(32);

// remote makes a client that has nothing but the key's id to begin with.
const remote = (key) => new CryptographyClient(key.id, credential, options);
const refused = (statusCode, code) => (err) => err.statusCode === statusCode && err.code === code;

await run('@azure/keyvault-keys', {
  async 'versions, attributes and tags'() {
    const first = await vault.createRsaKey('Sealing', { keySize: 2048, tags: { use: 'grants' } });
    assert.equal(first.keyType, 'RSA');
    assert.equal(first.key.n.length, 256);
    const second = await vault.rotateKey('Sealing');
    assert.notEqual(second.properties.version, first.properties.version);
    assert.equal((await vault.getKey('Sealing')).properties.version, second.properties.version);
    assert.equal((await vault.getKey('sealing', { version: first.properties.version })).id, first.id);
    let versions = 0;
    for await (const _ of vault.listPropertiesOfKeyVersions('Sealing')) versions++;
    assert.equal(versions, 2);
    const changed = await vault.updateKeyProperties('Sealing', first.properties.version, { enabled: false });
    assert.equal(changed.properties.enabled, false);
    await assert.rejects(remote(first).sign('RS256', digest), refused(403, 'Forbidden'));
    await assert.rejects(vault.getKey('no-such-key'), refused(404, 'KeyNotFound'));
  },

  async 'wrap, unwrap, encrypt, decrypt'() {
    const key = await vault.createRsaKey('Wrapping', { keySize: 2048 });
    for (const algorithm of ['RSA1_5', 'RSA-OAEP', 'RSA-OAEP-256']) {
      const { result: wrapped } = await remote(key).wrapKey(algorithm, secret);
      assert.deepEqual(Buffer.from((await remote(key).unwrapKey(algorithm, wrapped)).result), secret, algorithm);
      const { result: ciphertext } = await remote(key).encrypt({ algorithm, plaintext: secret });
      assert.deepEqual(Buffer.from((await remote(key).decrypt({ algorithm, ciphertext })).result), secret, algorithm);
    }
    // The client knows the public half, and uses it itself.
    const { result: here } = await new CryptographyClient(key.key).wrapKey('RSA-OAEP', secret);
    assert.deepEqual(Buffer.from((await remote(key).unwrapKey('RSA-OAEP', here)).result), secret);
  },

  async 'sign, verify'() {
    const rsa = await vault.createRsaKey('Signing-RSA', { keySize: 2048 });
    const ec = await vault.createEcKey('Signing-EC', { curve: 'P-256' });
    for (const [key, algorithm] of [[rsa, 'RS256'], [rsa, 'PS256'], [ec, 'ES256']]) {
      const { result } = await remote(key).sign(algorithm, digest);
      assert.ok((await remote(key).verify(algorithm, digest, result)).result, algorithm);
      assert.equal((await remote(key).verify(algorithm, createHash('sha256').update('another').digest(), result)).result, false, algorithm);
    }
    const { result } = await remote(rsa).signData('RS256', Buffer.from('a message'));
    assert.ok((await new CryptographyClient(rsa.key).verifyData('RS256', Buffer.from('a message'), result)).result);
  },

  async 'import, and what a key is not for'() {
    const bytes = Object.fromEntries(Object.entries(createPrivateKey(emulator.key).export({ format: 'jwk' }))
      .map(([name, value]) => [name, name === 'kty' ? value : Buffer.from(value, 'base64url')]));
    const key = await vault.importKey('Imported', { ...bytes, keyOps: ['sign', 'verify'] });
    assert.deepEqual(key.keyOperations, ['sign', 'verify']);
    assert.ok((await remote(key).sign('RS256', digest)).result.length === 256);
    // The client reads what the key is for, and does not even ask.
    await assert.rejects(remote(key).unwrapKey('RSA-OAEP-256', randomBytes(256)), /Operation unwrapKey is not supported/);
  },

  async 'deletion, recovery, purge, backup'() {
    await vault.createEcKey('Gone', { curve: 'P-384' });
    const backup = await vault.backupKey('Gone');
    const deleted = await (await vault.beginDeleteKey('Gone', quick)).pollUntilDone();
    assert.ok(deleted.properties.recoveryId.startsWith(emulator.vault));
    await assert.rejects(vault.getKey('Gone'), refused(404, 'KeyNotFound'));
    await assert.rejects(vault.createEcKey('Gone'), refused(409, 'Conflict'));
    await (await vault.beginRecoverDeletedKey('Gone', quick)).pollUntilDone();
    await (await vault.beginDeleteKey('Gone', quick)).pollUntilDone();
    await vault.purgeDeletedKey('Gone');
    assert.equal((await vault.restoreKeyBackup(backup)).key.crv, 'P-384');
    assert.equal((await vault.getRandomBytes(16)).length, 16);
  },
});
