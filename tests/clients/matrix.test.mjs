// Every client package against every kind of back end: the same core set, and the same answers.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { clientsOf } from './clients.mjs';
import { coreSuite } from './core.mjs';
import { llamaServer, model, modelFile, startHearth } from './hearth.mjs';
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
  front = await startHearth({ config: present.map((backend) => `[models.${backend.name}]\n${keyed(backend)}\n`).join('\n') });
  clients = clientsOf(front.url);
  // What the model says, asked without a gateway's help: all others must get the same.
  const [openai] = clientsOf(back.url, key);
  const conversation = openai.ask('list files by size');
  const said = await openai.answer({ model, conversation });
  const { bash } = await import('./clients.mjs');
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
for (const [at, name] of clientsOf('http://127.0.0.1').map((client) => client.name).entries()) {
  for (const backend of present) {
    coreSuite(`${name} against ${backend.what}`, {
      client: () => clients[at],
      hearth: () => front,
      model: backend.name,
      expected: () => backend.expected ?? nano,
    });
  }
}
