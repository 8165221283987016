// The examples of docs/clients.md, run as they stand but for the address and the model's name.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { collect, model, startHearth } from './hearth.mjs';

const page = readFileSync(new URL('../../docs/clients.md', import.meta.url), 'utf8');
const examples = [...page.matchAll(/^```(js|sh)\n(.*?)^```$/gms)].map(([, language, code]) => ({ language, code }));
let hearth;

before(async () => (hearth = await startHearth()));
after(() => hearth?.stop());

async function run(program, args, code) {
  const input = code.replaceAll('http://127.0.0.1:8085', hearth.url).replaceAll('NAME', model);
  const child = spawn(program, args, { cwd: fileURLToPath(new URL('.', import.meta.url)), stdio: 'pipe' });
  child.stdin.end(input);
  const ended = new Promise((done) => child.on('exit', done));
  const [said, complained] = (await Promise.all([collect(child.stdout), collect(child.stderr)])).map((chunks) => Buffer.concat(chunks).toString());
  assert.equal(await ended, 0, `${input}\n${complained}`);
  return said;
}

const javascript = examples.filter(({ language }) => language === 'js');
test('the page has its examples', () => assert.ok(javascript.length >= 5, `${javascript.length} examples`));
for (const { code } of javascript) {
  const [, called] = /await (.*?)\(/.exec(code);
  test(`${called} of ${/from '([^']+)';\nconst/.exec(code)[1]}`, () => run(process.execPath, ['--input-type=module'], code));
}

test('curl', async () => {
  const { code } = examples.find(({ code: text }) => text.startsWith('curl'));
  assert.match(await run('sh', [], code), /data: \[DONE\]\n\n$/);
});
