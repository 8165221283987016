// Every client package against every kind of back end: the same core set, and the same answers.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { bash, clientNames, clientsOf } from './clients.mjs';
import { coreSuite, question } from './core.mjs';
import { llamaServer, model, modelFile, startHearth, until } from './hearth.mjs';
import { scripted, startScripted } from './scripted.mjs';

const key = 'the-key-of-these-tests';
const backends = [
  { name: 'worker', what: "hearth's own worker", table: () => 'path = "embedded:"\npinned = true' },
  {
    name: 'command',
    what: 'a supervised llama-server',
    skip: !llamaServer && 'HEARTH_LLAMA_SERVER names no llama-server: scripts/test --full builds one',
    table: () => `kind = "command"
command = [${[llamaServer, '-m', modelFile, '--alias', 'nano', '--host', '127.0.0.1', '--port', '{port}', '-c', '8192', '-np', '4', '-t', '1', '--jinja']
    .map((word) => JSON.stringify(word)).join(', ')}]
remote_model = "nano"
memory = "200MiB"
pinned = true`,
  },
  { name: 'openai', what: 'a remote OpenAI endpoint', table: () => `kind = "openai"\nurl = "${back.url}/v1"\nremote_model = "${model}"` },
  {
    name: 'anthropic',
    what: 'a remote Anthropic endpoint',
    table: () => `kind = "anthropic"\nurl = "${back.url}/v1"\nremote_model = "${model}"\napi_key = "${key}"`,
  },
  {
    name: 'hermes',
    what: 'an engine that writes tool calls as text',
    table: () => `kind = "openai"\nurl = "${talker.url}/v1"\ntool_dialect = "hermes"`,
    expected: { text: scripted.text, input: { command: scripted.command }, after: scripted.after('a.txt\nb.txt\nc.txt') },
  },
];
const present = backends.filter(({ skip }) => !skip);
let back, front, talker, clients, nano;

before(async () => {
  [back, talker] = await Promise.all([startHearth({ env: { HEARTH_API_KEY: key } }), startScripted()]);
  const keyed = (backend) => (backend.name === 'openai' ? `${backend.table()}\napi_key = "${key}"` : backend.table());
  front = await startHearth({ config: `timeouts.keep_alive = "100ms"\n${present.map((backend) => `[models.${backend.name}]\n${keyed(backend)}\n`).join('\n')}` });
  clients = clientsOf(front.url);
  // What the model says, asked without a gateway's help: all others must get the same.
  const [openai] = clientsOf(back.url, { key });
  const conversation = openai.ask(question);
  const said = await openai.answer({ model, conversation });
  const called = await openai.answer({ model, conversation, tools: [bash] });
  nano = { text: said.text, input: called.calls[0].input };
});
after(async () => {
  const exits = await Promise.all([front?.stop(), back?.stop(), talker?.stop()]);
  assert.equal(exits[0], 0, `hearth ended with ${exits[0]}:\n${front?.log()}`);
  assert.equal(exits[1], 0);
});

for (const backend of backends) {
  if (backend.skip) test(`every client against ${backend.what}`, { skip: backend.skip });
}
for (const [at, name] of clientNames.entries()) {
  for (const backend of present) {
    coreSuite(`${name} against ${backend.what}`, {
      client: () => clients[at],
      hearth: () => front,
      model: backend.name,
      expected: () => backend.expected ?? nano,
    });
  }
}

const hermes = 'hermes';
for (const [at, name] of clientNames.entries()) {
  for (const stream of [false, true]) {
    test(`${name}: thoughts come apart from the text, and go back with the conversation${stream ? ', streamed' : ''}`, async () => {
      const client = clients[at];
      const conversation = client.ask('think about files');
      const first = await client.answer({ model: hermes, conversation, stream });
      assert.equal(first.thought, scripted.thought);
      assert.equal(first.text, scripted.text);
      conversation.push(...first.turn, ...client.ask('and now?'));
      assert.equal((await client.answer({ model: hermes, conversation, stream })).text, scripted.text);
      const [, said] = talker.asked.at(-1).messages;
      assert.equal(said.role, 'assistant');
      assert.equal(said.content, scripted.text);
      assert.equal(said.reasoning_content, scripted.thought);
    });
  }

  test(`${name}: signs of life while the engine is silent are none of the answer`, async () => {
    let seen = '';
    const listening = async (...request) => {
      const response = await fetch(...request);
      const [ours, theirs] = response.body.tee();
      (async () => {
        for await (const bytes of ours) seen += Buffer.from(bytes).toString();
      })();
      return new Response(theirs, response);
    };
    const client = clientsOf(front.url, { fetch: listening })[at];
    const answer = client.answer({ model: hermes, conversation: client.ask('wait'), stream: true });
    const sign = name.includes('nthropic') ? /^event: ping$/m : name === 'ollama' ? /^ +/ : /^:/m;
    await until(() => sign.test(seen), 'a sign of life', 10_000);
    talker.goOn();
    assert.equal((await answer).text, scripted.text);
  });
}

test('a crowd: every client at once, against every back end, some of them leaving', { timeout: 60_000 }, async () => {
  const tasks = [];
  for (const { name: backend, expected } of present) {
    const { text, input } = expected ?? nano;
    for (const client of clients) {
      tasks.push(async (stream) => {
        const said = await client.answer({ model: backend, conversation: client.ask(question), stream });
        assert.equal(said.text, text);
        const called = await client.answer({ model: backend, conversation: client.ask(question), tools: [bash], stream });
        assert.deepEqual(called.calls.map((call) => call.input), [input]);
      });
      tasks.push(async () => {
        const leave = new AbortController();
        await client.answer({ model: backend, conversation: client.ask(question), stream: true, signal: leave.signal, onText: () => leave.abort() }).catch((error) => {
          assert.ok(client.aborted(error), String(error));
        });
      });
    }
  }
  assert.ok(tasks.length >= 16);
  await Promise.all(tasks.map((task, number) => task(number % 4 < 2)));
  await until(async () => (await front.models()).every(({ running }) => running === 0), 'nothing running');
});
