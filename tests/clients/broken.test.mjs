// What every client package sees when the way to an engine breaks: a whole answer or a proper error, never a hang and never half an answer that looks
// whole.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';
import { bash, clientNames, clientsOf } from './clients.mjs';
import { question } from './core.mjs';
import { model, startGate, startHearth, until } from './hearth.mjs';

const key = 'the-key-of-these-tests';
const kinds = ['openai', 'anthropic'];
const whole = { sliced: ['--slice', '7', '--request-slice', '11'], slow: ['--slice', '60', '--request-slice', '200', '--delay-us', '300'] };
const broken = {
  'reset at once': ['--reset-at', '0'],
  'reset in the head': ['--reset-at', '60'],
  'reset in the answer': ['--reset-at', '700', '--slice', '50'],
  'cut in the answer': ['--truncate-at', '700', '--slice', '50'],
  'silent in the answer': ['--stall-at', '700'],
};
// A table for each client: after a few failures an endpoint is left alone for a while, and the next client would see that instead.
const id = (plan, kind, at) => [...plan.split(' '), kind, at].join('-');
let back, front, gates, clients, expected;

const patience = (plan) => (plan.startsWith('silent') ? 'first_token = "1s"\nbetween_tokens = "1s"\n' : '');

before(async () => {
  back = await startHearth({ env: { HEARTH_API_KEY: key } });
  const plans = Object.entries({ ...whole, ...broken });
  gates = await Promise.all(plans.map(([, flags]) => startGate(back.url, flags)));
  const tables = plans.flatMap(([plan], number) =>
    kinds.flatMap((kind) =>
      clientNames.map((_, at) => `[models.${id(plan, kind, at)}]\nkind = "${kind}"\nurl = "${gates[number].url}/v1"\nremote_model = "${model}"\napi_key = "${key}"\n${patience(plan)}`),
    ),
  );
  front = await startHearth({ config: tables.join('\n') });
  clients = clientsOf(front.url);
  const [openai] = clientsOf(back.url, { key });
  const said = await openai.answer({ model, conversation: openai.ask(question) });
  const called = await openai.answer({ model, conversation: openai.ask(question), tools: [bash] });
  expected = { text: said.text, input: called.calls[0].input };
});
after(async () => {
  const [exit] = await Promise.all([front?.stop(), back?.stop(), ...(gates ?? []).map((gate) => gate.stop())]);
  assert.equal(exit, 0, `hearth ended with ${exit}:\n${front?.log()}`);
});

// Most of their time is waiting.
describe('a bad way', { concurrency: 24 }, () => {
  for (const [at, name] of clientNames.entries()) {
    for (const kind of kinds) {
      for (const plan of Object.keys(whole)) {
        test(`${name} over a ${plan} way to an ${kind} endpoint: whole answers`, { timeout: 30_000 }, async () => {
          const client = clients[at];
          for (const stream of [false, true]) {
            const request = { model: id(plan, kind, at), conversation: client.ask(question), stream };
            assert.equal((await client.answer(request)).text, expected.text);
            const called = await client.answer({ ...request, tools: [bash] });
            assert.deepEqual(called.calls.map(({ input }) => input), [expected.input]);
          }
        });
      }
      for (const plan of Object.keys(broken)) {
        test(`${name}, and the way to an ${kind} endpoint is ${plan}: an error`, { timeout: 30_000 }, async () => {
          const client = clients[at];
          for (const stream of [false, true]) {
            const request = { model: id(plan, kind, at), conversation: client.ask(question), tools: [bash], stream };
            await assert.rejects(client.answer(request), (error) => {
              const { expected: proper, message, status } = client.error(error);
              assert.ok(proper, String(error));
              assert.ok(status === undefined || status >= 500, `${status}: ${message}`);
              assert.doesNotMatch(message, /JSON|fetch failed|terminated|Premature|not iterable/, 'it is the server that tells');
              return true;
            });
          }
        });
      }
    }
  }
});

test('every client is told when the worker dies in mid-stream, and served afterwards', { timeout: 60_000 }, async () => {
  const hearth = await startHearth();
  try {
    const words = { type: 'object', properties: { words: { type: 'array', items: { enum: ['one', 'two'] }, minItems: 400 } }, required: ['words'] };
    const endless = { name: 'write', description: 'Write', schema: words };
    for (const client of clientsOf(hearth.url)) {
      const [worker] = await until(() => (hearth.workers().length === 1 ? hearth.workers() : undefined), 'one worker');
      let pieces = 0;
      const request = { model, conversation: client.ask(question), tools: [endless], must: 'write', stream: true, limit: 1500 };
      await assert.rejects(client.answer({ ...request, onText: () => ++pieces === 3 && process.kill(worker, 'SIGKILL') }), (error) => {
        const { expected: proper, message } = client.error(error);
        assert.ok(proper && /engine|worker/.test(message), `${client.name}: ${message}`);
        return true;
      });
      assert.ok(pieces >= 3, `${client.name}: ${pieces} pieces`);
      assert.equal((await client.answer({ model, conversation: client.ask(question) })).text, expected.text);
    }
    assert.ok(hearth.running());
  } finally {
    await hearth.stop();
  }
});

test('a server that cannot be started: its last words, for every client; SDKs try that again, and what would fail alike they do not', { timeout: 60_000 }, async () => {
  const command = ['sh', '-c', 'echo the flag --frobnicate is not known >&2; exit 3', '{port}'];
  const hearth = await startHearth({
    config: `[models.${model}]\npath = "embedded:"\n[models.doomed]\nkind = "command"\ncommand = ${JSON.stringify(command)}\nmemory = "1MiB"\n`,
  });
  try {
    for (const client of clientsOf(hearth.url)) {
      for (const stream of [false, true]) {
        await assert.rejects(client.answer({ model: 'doomed', conversation: client.ask(question), stream }), (error) => {
          const { expected: proper, status, message } = client.error(error);
          assert.ok(proper && status === 503, `${client.name}: ${status}`);
          assert.match(message, /exit code 3.*the flag --frobnicate is not known/);
          return true;
        });
      }
    }
    let tried;
    const counting = (...request) => {
      tried++;
      return fetch(...request);
    };
    const messages = [{ role: 'user', content: question }];
    const options = { apiKey: 'none', maxRetries: 2, fetch: counting };
    const openai = new OpenAI({ baseURL: `${hearth.url}/v1`, ...options });
    const anthropic = new Anthropic({ baseURL: hearth.url, ...options });
    for (const ask of [(body) => openai.chat.completions.create({ messages, ...body }), (body) => anthropic.messages.create({ messages, max_tokens: 4, ...body })]) {
      for (const [body, times] of [[{ model: 'doomed' }, 3], [{ model: 'no-such-model' }, 1], [{ model, max_tokens: 9999 }, 1]]) {
        tried = 0;
        await assert.rejects(ask(body));
        assert.equal(tried, times, JSON.stringify(body));
      }
    }
  } finally {
    await hearth.stop();
  }
});
