// What the scripts share. Each line that a script prints is an event for the
// test that runs it: {"ran": what}, {"passed": what}, or a request that is
// answered with a line: {"sign_in": url} with the URL that the browser is sent
// back to, {"page": url, "code": code} and {"revoke": true} with nothing.
import dns from 'node:dns';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

export const emulator = JSON.parse(process.env.EMULATOR);

// A client that calls anything beyond this machine ignores its settings. Names
// below localhost are this machine, whether its resolver knows that or not.
const lookup = dns.lookup;
dns.lookup = (host, ...rest) => {
  if (host !== 'localhost' && !host.endsWith('.localhost')) throw new Error(`a test called ${host}, beyond this machine`);
  return lookup('localhost', ...rest);
};

const say = (event) => process.stdout.write(JSON.stringify(event) + '\n');
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

async function ask(event) {
  say(event);
  return (await answers.next()).value;
}

export const signIn = (authorize) => ask({ sign_in: String(authorize) });
export const enterCode = (page, code) => ask({ page, code });
export const revoke = () => ask({ revoke: true });

// run prints which version of a package runs, and runs the steps in order.
export async function run(pkg, steps) {
  const { version } = JSON.parse(readFileSync(`node_modules/${pkg}/package.json`, 'utf8'));
  say({ ran: `${pkg} ${version} on Node ${process.version}` });
  for (const [name, step] of Object.entries(steps)) {
    try {
      await step();
      say({ passed: name });
    } catch (err) {
      console.error(`${name}:`, err);
      process.exitCode = 1;
    }
  }
  process.stdin.destroy();
}

// claims decodes a token without verifying it.
export const claims = (token) => JSON.parse(Buffer.from(token.split('.')[1], 'base64url'));

export const resources = {
  partnerCenter: 'https://api.partnercenter.microsoft.com',
  graph: 'https://graph.microsoft.com',
  arm: 'https://management.azure.com',
};
