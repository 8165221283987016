// Agent loops of the official packages under safety: a safe call passes, a destructive one is replaced by its reason, one that needs a person is released from the command line,
// and the audit log shows all three. The built-in model calls by itself; the others are told to an engine that writes its calls as text.
import Anthropic from '@anthropic-ai/sdk';
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { after, before, test } from 'node:test';
import OpenAI from 'openai';
import { bashTool, model, startHearth, until } from './hearth.mjs';
import { startScripted } from './scripted.mjs';

const dangerous = 'rm -rf / --no-preserve-root';
const asked = 'sudo apt-get install -y jq';
const bash = { name: 'bash', description: 'Run a shell command', input_schema: bashTool.function.parameters };
let hearth, engine;

before(async () => {
  engine = await startScripted();
  hearth = await startHearth({
    env: { HEARTH_SAFETY: undefined },
    config: `timeouts.keep_alive = "100ms"
[safety]
working_folder = "/home/user/project"
[models."${model}"]
path = "embedded:"
pinned = true
[models.scripted]
kind = "openai"
url = "${engine.url}/v1"
tool_dialect = "hermes"
`,
  });
});
after(async () => {
  assert.equal(await hearth?.stop(), 0);
  await engine?.stop();
});

// The command line, as an operator types it.
async function run(...args) {
  const child = spawn(process.env.HEARTH_BIN, args, { env: { ...process.env, HEARTH_URL: hearth.url }, stdio: ['ignore', 'pipe', 'pipe'] });
  let out = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (out += chunk));
  const code = await new Promise((done) => child.on('close', done));
  return { code, out };
}

// One turn of an agent: what was said, what it is to run, and why the answer ended.
const agents = {
  async openai(ask, on = model) {
    const client = new OpenAI({ baseURL: `${hearth.url}/v1`, apiKey: 'none', maxRetries: 0 });
    const stream = client.chat.completions.stream({ model: on, max_tokens: 400, temperature: 0, messages: [{ role: 'user', content: ask }], tools: [bashTool] });
    const { choices: [choice] } = await stream.finalChatCompletion();
    return {
      text: choice.message.content ?? '',
      commands: (choice.message.tool_calls ?? []).map((call) => JSON.parse(call.function.arguments).command),
      ended: choice.finish_reason === 'tool_calls' ? 'calls' : choice.finish_reason,
    };
  },
  async anthropic(ask, on = model) {
    const client = new Anthropic({ baseURL: hearth.url, apiKey: 'none', maxRetries: 0 });
    const message = await client.messages.stream({ model: on, max_tokens: 400, temperature: 0, messages: [{ role: 'user', content: ask }], tools: [bash] }).finalMessage();
    return {
      text: message.content.filter(({ type }) => type === 'text').map(({ text }) => text).join(''),
      commands: message.content.filter(({ type }) => type === 'tool_use').map(({ input }) => input.command),
      ended: { tool_use: 'calls', end_turn: 'stop' }[message.stop_reason] ?? message.stop_reason,
    };
  },
};

for (const [name, turn] of Object.entries(agents)) {
  test(`${name}: a safe command of the built-in model passes`, async () => {
    const { commands, ended } = await turn('list all files');
    assert.equal(commands.length, 1);
    assert.match(commands[0], /^ls\b/);
    assert.equal(ended, 'calls');
  });

  test(`${name}: a destructive command is replaced by its reason`, async () => {
    const { text, commands, ended } = await turn(`run: ${dangerous}`, 'scripted');
    assert.deepEqual(commands, []);
    assert.match(text, /^Let me look\./, 'what was said before the call stays');
    assert.match(text, /hearth did not release this call of bash: .+ \(rule .+, layer .+\)/);
    assert.equal(ended, 'stop');
  });

  test(`${name}: a command that needs a person is released from the command line`, async () => {
    const answer = turn(`run: ${asked}`, 'scripted');
    const waiting = await until(async () => {
      const { out } = await run('approvals', '--json');
      return JSON.parse(out).waiting[0];
    }, 'a call that waits');
    assert.equal(JSON.parse(waiting.arguments).command, asked);
    assert.match((await run('approvals')).out, /sudo apt-get install -y jq/);
    const { code, out } = await run('approvals', 'approve', waiting.id, '--reason', 'my own machine');
    assert.equal(code, 0, out);
    const { commands, ended } = await answer;
    assert.deepEqual(commands, [asked]);
    assert.equal(ended, 'calls');
    assert.equal((await run('approvals', 'approve', waiting.id)).code, 1, 'a word counts once');
  });
}

test('the audit log shows all of it, and is whole', async () => {
  const rows = (await run('audit', 'list', '--state-folder', hearth.state, '--json')).out.trim().split('\n').map((line) => JSON.parse(line));
  for (const outcome of ['released', 'refused', 'held', 'approved']) {
    assert.equal(rows.filter((row) => row.outcome === outcome && row.tool === 'bash').length, 2, `${outcome}: ${JSON.stringify(rows, null, 1)}`);
  }
  assert.equal(rows.find((row) => row.outcome === 'approved').note, 'my own machine');
  const table = (await run('audit', 'list', '--state-folder', hearth.state, '--decision', 'deny')).out;
  assert.match(table, /DENY +refused +local +bash/);
  assert.match((await run('audit', 'show', '1', '--state-folder', hearth.state)).out, /^outcome +released$/m);
  const verified = await run('audit', 'verify', '--state-folder', hearth.state);
  assert.equal(verified.code, 0, verified.out);
  assert.match(verified.out, /8 rows, whole/);
});

// Held back, a call gives a client nothing to see: it leaves by its own clock.
async function leave(turn, when, what) {
  const gone = new AbortController();
  const answer = turn(gone.signal);
  const value = await until(when, what);
  gone.abort();
  await assert.rejects(answer, OpenAI.APIUserAbortError);
  await until(async () => (await hearth.models()).every(({ running }) => running === 0), 'nothing running');
  return value;
}
const openai = () => new OpenAI({ baseURL: `${hearth.url}/v1`, apiKey: 'none', maxRetries: 0 });

test('a client that leaves while a call is being written frees the engine', async () => {
  const parameters = { type: 'object', properties: { words: { type: 'array', items: { enum: ['one', 'two'] }, minItems: 400 } }, required: ['words'] };
  const endless = { type: 'function', function: { name: 'write', description: 'Write', parameters } };
  const body = { model, max_tokens: 1500, messages: [{ role: 'user', content: 'write for ever' }], tools: [endless], tool_choice: { type: 'function', function: { name: 'write' } } };
  let seen = 0;
  await leave(
    async (signal) => { for await (const chunk of await openai().chat.completions.create({ ...body, stream: true }, { signal })) seen += chunk.choices.length; },
    async () => (await hearth.metric('hearth_engine_requests', { model, state: 'running' })) === 1,
    'the engine to write',
  );
  assert.ok(seen <= 1, `${seen} chunks of a call that nobody has judged`);
  assert.equal((await agents.openai('list all files')).commands.length, 1, 'it still answers');
});

test('a client that leaves while its call waits for a person takes it away', async () => {
  const body = { model: 'scripted', max_tokens: 400, messages: [{ role: 'user', content: `run: ${asked}` }], tools: [bashTool] };
  const { id } = await leave(
    (signal) => openai().chat.completions.stream(body, { signal }).finalChatCompletion(),
    async () => JSON.parse((await run('approvals', '--json')).out).waiting[0],
    'a call that waits',
  );
  assert.deepEqual(JSON.parse((await run('approvals', '--json')).out).waiting, []);
  assert.equal((await run('approvals', 'approve', id)).code, 1, 'nobody is there to be told');
  assert.equal((await run('audit', 'verify', '--state-folder', hearth.state)).code, 0);
});
