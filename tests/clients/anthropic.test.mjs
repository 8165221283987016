// What the official @anthropic-ai/sdk package, and agents built on it, see when they talk to hearth.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';
import Anthropic from '@anthropic-ai/sdk';
import { betaTool } from '@anthropic-ai/sdk/helpers/beta/json-schema';
import { ask, collect, model, startHearth } from './hearth.mjs';

const question = ask('list files by size');
const bash = {
  name: 'bash',
  description: 'Run a shell command',
  input_schema: { type: 'object', properties: { command: { type: 'string' } }, required: ['command'], additionalProperties: false },
};
let hearth, anthropic;

before(async () => {
  hearth = await startHearth();
  anthropic = new Anthropic({ baseURL: hearth.url, apiKey: 'none', maxRetries: 0 });
});
after(async () => {
  const exit = await hearth?.stop();
  assert.equal(exit, 0, `hearth ended with ${exit}:\n${hearth?.log()}`);
});

const create = (parameters, options) =>
  anthropic.messages.create({ model, max_tokens: 100, temperature: 0, messages: question, ...parameters }, options);
const textOf = ({ content }) => content.filter(({ type }) => type === 'text').map(({ text }) => text).join('');
const prompt = ({ usage }) => usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens;

// The order that clients rely on; gives the finished blocks.
function checkOrder(events) {
  const blocks = [];
  let open = false;
  for (const [at, event] of events.entries()) {
    if (event.type === 'ping') continue;
    assert.equal(event.type === 'message_start', at === 0, 'message_start comes first, and once');
    assert.equal(event.type === 'message_stop', at === events.length - 1, 'message_stop comes last, and once');
    if (event.type === 'content_block_start') {
      assert.ok(!open, 'blocks do not overlap');
      assert.equal(event.index, blocks.length, 'indices count from 0 without gaps');
      blocks.push({ ...event.content_block, said: '' });
      open = true;
    } else if (event.type === 'content_block_delta' || event.type === 'content_block_stop') {
      assert.ok(open && event.index === blocks.length - 1, `${event.type} belongs to the open block`);
      if (event.type === 'content_block_stop') open = false;
      else blocks.at(-1).said += event.delta.text ?? event.delta.partial_json ?? event.delta.thinking ?? '';
    } else if (event.type === 'message_delta') {
      assert.ok(!open, 'every block is closed');
    }
  }
  assert.equal(events.at(-2).type, 'message_delta');
  return blocks;
}

test('a plain answer has text, a reason and usage that adds up', async () => {
  const answer = await create();
  assert.equal(answer.type, 'message');
  assert.equal(answer.role, 'assistant');
  assert.equal(answer.model, model);
  assert.match(answer.id, /^msg_/);
  assert.equal(answer.content.length, 1);
  assert.ok(textOf(answer).length > 0);
  assert.equal(answer.stop_reason, 'end_turn');
  assert.equal(answer.stop_sequence, null);
  assert.ok(prompt(answer) > 5 && answer.usage.output_tokens > 1);
  assert.match(answer._request_id, /^req_/);
});

test('a streamed answer is the same, in the order clients rely on', async () => {
  const whole = await create();
  const events = await collect(await create({ stream: true }));
  const blocks = checkOrder(events);
  assert.deepEqual(blocks.map(({ type, said }) => [type, said]), [['text', textOf(whole)]]);
  assert.ok(events.filter(({ type }) => type === 'content_block_delta').length > 2, 'text comes in pieces');
  const { message } = events[0];
  assert.deepEqual([message.role, message.content, message.stop_reason, message.stop_sequence], ['assistant', [], null, null]);
  assert.equal(prompt(message), prompt(whole), 'the real count, at the start');
  const { delta, usage } = events.at(-2);
  assert.deepEqual(delta, { stop_reason: 'end_turn', stop_sequence: null });
  assert.equal(usage.output_tokens, whole.usage.output_tokens);
});

test('every event has its name in a line of its own', async () => {
  const response = await create({ stream: true }).asResponse();
  assert.match(response.headers.get('content-type'), /^text\/event-stream/);
  const frames = (await response.text()).split('\n\n').filter((frame) => frame);
  assert.ok(frames.length > 5);
  for (const frame of frames) {
    const [, name, data] = /^event: (\w+)\ndata: (.*)$/.exec(frame) ?? assert.fail(frame);
    assert.equal(JSON.parse(data).type, name);
  }
});

test('the stream helper assembles text and usage', async () => {
  const runner = anthropic.messages.stream({ model, max_tokens: 100, temperature: 0, messages: question });
  let seen = '';
  runner.on('text', (delta) => (seen += delta));
  const final = await runner.finalMessage();
  assert.equal(textOf(final), seen);
  assert.equal(final.stop_reason, 'end_turn');
  assert.deepEqual(final.usage, { ...(await create()).usage, input_tokens: final.usage.input_tokens, cache_read_input_tokens: final.usage.cache_read_input_tokens });
});

test('max_tokens cuts the answer and says so', async () => {
  const answer = await create({ max_tokens: 2 });
  assert.equal(answer.stop_reason, 'max_tokens');
  assert.equal(answer.usage.output_tokens, 2);
});

test('a stop sequence ends the answer, is not part of it, and is named', async () => {
  const whole = textOf(await create());
  const stop = whole.slice(5, 9);
  for (const stream of [false, true]) {
    const parameters = { stop_sequences: ['never this', stop] };
    const answer = stream ? await anthropic.messages.stream({ model, max_tokens: 100, temperature: 0, messages: question, ...parameters }).finalMessage() : await create(parameters);
    assert.equal(textOf(answer), whole.slice(0, whole.indexOf(stop)));
    assert.equal(answer.stop_reason, 'stop_sequence');
    assert.equal(answer.stop_sequence, stop);
  }
});

function bashCall({ content, stop_reason }) {
  assert.equal(stop_reason, 'tool_use');
  const calls = content.filter(({ type }) => type === 'tool_use');
  assert.equal(calls.length, 1);
  assert.equal(calls[0].name, 'bash');
  assert.ok(calls[0].id.length > 0);
  assert.equal(typeof calls[0].input.command, 'string');
  return calls[0];
}

test('a streamed tool call begins with an empty input and comes in fragments of JSON', async () => {
  const whole = bashCall(await create({ tools: [bash] }));
  const events = await collect(await create({ tools: [bash], stream: true }));
  const call = checkOrder(events).find(({ type }) => type === 'tool_use');
  assert.equal(call.name, 'bash');
  assert.deepEqual(call.input, {});
  assert.deepEqual(JSON.parse(call.said), whole.input);
  assert.ok(events.filter(({ delta }) => delta?.type === 'input_json_delta').length > 1);
  assert.equal(events.at(-2).delta.stop_reason, 'tool_use');
});

test('results go back: as text, as blocks, failed, and with words behind them', async () => {
  const first = await create({ tools: [bash] });
  const call = bashCall(first);
  for (const said of [
    { content: 'a.txt\nb.txt' },
    { content: [{ type: 'text', text: 'a.txt' }, { type: 'text', text: 'b.txt' }] },
    { content: 'no such command', is_error: true },
    {},
  ]) {
    const result = { type: 'tool_result', tool_use_id: call.id, ...said, cache_control: { type: 'ephemeral' } };
    const answer = await create({
      tools: [bash],
      messages: [...question, { role: 'assistant', content: first.content }, { role: 'user', content: [result, { type: 'text', text: 'and now?' }] }],
    });
    assert.ok(answer.content.length > 0);
    assert.ok(prompt(answer) > prompt(first) + 5);
  }
});

test('tool_choice auto, any, tool and none are obeyed', async () => {
  for (const tool_choice of [{ type: 'auto' }, { type: 'any' }, { type: 'tool', name: 'bash' }, { type: 'any', disable_parallel_tool_use: true }]) {
    bashCall(await create({ tools: [bash], tool_choice }));
  }
  const none = await create({ tools: [bash], tool_choice: { type: 'none' } });
  assert.ok(none.content.every(({ type }) => type === 'text'));
  assert.notEqual(none.stop_reason, 'tool_use');
});

test('the tool runner calls our function and sends its result', async () => {
  const commands = [];
  const runner = anthropic.beta.messages.toolRunner({
    model,
    max_tokens: 100,
    temperature: 0,
    messages: question,
    max_iterations: 3,
    tools: [betaTool({ ...bash, inputSchema: bash.input_schema, run: ({ command }) => `ran ${commands.push(command)}` })],
  });
  // The runner first asks for a conversation that the server holds, and goes on without when it is refused in the right words.
  for await (const message of runner) assert.equal(message.role, 'assistant');
  assert.ok(commands.length >= 1 && commands.every((command) => typeof command === 'string'));
});

test('a thread held by the server is refused for what it is', async () => {
  const thread = anthropic.beta.messages.thread({ model, max_tokens: 9 });
  await assert.rejects(thread.send(question[0]), (error) => {
    assert.ok(error instanceof Anthropic.BadRequestError, String(error));
    assert.match(error.message, /thread cannot be used: no conversation is stored here/);
    return true;
  });
});

test('a schema in output_config holds for the answer', async () => {
  const schema = {
    type: 'object',
    properties: { kind: { type: 'string', enum: ['file', 'folder'] }, dangerous: { type: 'boolean' } },
    required: ['kind', 'dangerous'],
    additionalProperties: false,
  };
  const value = JSON.parse(textOf(await create({ output_config: { format: { type: 'json_schema', schema } } })));
  assert.deepEqual(Object.keys(value).sort(), ['dangerous', 'kind']);
  assert.equal(typeof value.dangerous, 'boolean');
});

test('what agents send besides: cache control, metadata, small thinking budgets, betas, tools of the host', async () => {
  const cached = { cache_control: { type: 'ephemeral' } };
  const { data: answer, response } = await anthropic.beta.messages
    .create({
      model,
      max_tokens: 100,
      temperature: 1,
      system: [{ type: 'text', text: 'You write shell commands.', ...cached }],
      messages: [{ role: 'user', content: [{ type: 'text', text: 'list files', ...cached }] }],
      metadata: { user_id: 'somebody' },
      thinking: { type: 'enabled', budget_tokens: 500 },
      tools: [{ ...bash, ...cached }, { type: 'web_search_20250305', name: 'web_search' }],
      betas: ['interleaved-thinking-2025-05-14', 'context-management-2025-06-27'],
      context_management: { edits: [] },
      service_tier: 'auto',
    })
    .withResponse();
  assert.ok(answer.content.length > 0);
  assert.match(response.headers.get('x-hearth-server-tools'), /^web_search/);
});

test('thinking blocks of earlier answers come back as they went out, signed or redacted', async () => {
  const answer = await create({
    messages: [
      ...question,
      {
        role: 'assistant',
        content: [
          { type: 'thinking', thinking: 'Hm.', signature: 'a-signature' },
          { type: 'redacted_thinking', data: 'abc' },
          { type: 'text', text: 'ls -S' },
        ],
      },
      ...ask('and newest first?'),
    ],
  });
  assert.ok(textOf(answer).length > 0);
});

test('the billing header that changes with every request does not spoil the prefix cache', async () => {
  const said = 'You write shell commands, short ones, and nothing else. ';
  const turn = (counter) =>
    create({
      max_tokens: 4,
      system: [
        { type: 'text', text: `x-anthropic-billing-header: cc_version=2.1.${counter}; cch=${counter}${counter};` },
        { type: 'text', text: said.repeat(12) },
      ],
    });
  const first = await turn(7);
  for (const counter of [8, 12345]) {
    const next = await turn(counter);
    assert.equal(prompt(next), prompt(first));
    assert.ok(next.usage.cache_read_input_tokens > 0.9 * prompt(first), `${next.usage.cache_read_input_tokens} of ${prompt(first)} were cached`);
  }
});

test('count_tokens counts what a request takes', async () => {
  for (const parameters of [{}, { tools: [bash] }, { system: 'You write shell commands.' }]) {
    const { input_tokens: counted } = await anthropic.messages.countTokens({ model, messages: question, ...parameters });
    assert.equal(counted, prompt(await create({ max_tokens: 1, ...parameters })));
  }
  await assert.rejects(anthropic.messages.countTokens({ model: 'no-such-model', messages: question }), Anthropic.NotFoundError);
  await assert.rejects(anthropic.messages.countTokens({ model, messages: [] }), Anthropic.BadRequestError);
});

test('models are listed in this API\'s shape and retrieved', async () => {
  const page = await anthropic.models.list({ limit: 1000 });
  assert.deepEqual(page.data.map(({ type, id }) => [type, id]), [['model', model]]);
  assert.ok(page.data[0].display_name.length > 0 && Date.parse(page.data[0].created_at) > 0);
  assert.deepEqual([page.has_more, page.first_id, page.last_id], [false, model, model]);
  assert.equal((await anthropic.models.retrieve(model)).id, model);
  await assert.rejects(anthropic.models.retrieve('no-such-model'), Anthropic.NotFoundError);
});

const pixel = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';
const user = (...content) => [{ role: 'user', content }];
const wrong = [
  ['an image to a text model', { messages: user({ type: 'image', source: { type: 'base64', media_type: 'image/png', data: pixel } }) }, /image/],
  ['a PDF', { messages: user({ type: 'document', source: { type: 'base64', media_type: 'application/pdf', data: 'JVBERi0=' } }) }, /PDF/],
  ['no messages', { messages: [] }, /^messages/],
  ['no max_tokens', { max_tokens: undefined }, /max_tokens/],
  ['a block of an unknown type', { messages: user({ type: 'wizardry' }) }, /messages\[0\]\.content\[0\]\.type/],
  ['a result without its call', { messages: user({ type: 'tool_result', tool_use_id: 'toolu_none', content: 'x' }) }, /tool_use_id.*toolu_none/],
  ['a tool without a schema', { tools: [{ name: 'bash' }] }, /tools\[0\]\.input_schema/],
  ['a schema that is none', { tools: [{ name: 'bash', input_schema: { type: 'nonsense' } }], tool_choice: { type: 'any' } }, /nonsense|schema/],
  ['two tools of one name', { tools: [bash, bash] }, /tools\[1\]\.name/],
  ['a choice that is not offered', { tools: [bash], tool_choice: { type: 'tool', name: 'zsh' } }, /tool_choice.*zsh/],
  ['a prompt over the context', { messages: ask('word '.repeat(5000)) }, /prompt is too long: \d+ tokens > 2048 maximum/],
  ['more tokens than the context leaves', { max_tokens: 3000 }, /input length and `max_tokens` exceed context limit: \d+ \+ 3000 > 2048/],
];
for (const [what, parameters, message] of wrong) {
  for (const stream of [false, true]) {
    test(`${what} is a BadRequestError that says what is wrong${stream ? ', also when streamed' : ''}`, async () => {
      await assert.rejects(create({ ...parameters, stream }), (error) => {
        assert.ok(error instanceof Anthropic.BadRequestError, String(error));
        assert.equal(error.type, 'invalid_request_error');
        assert.match(error.error.error.message, message);
        assert.match(error.requestID, /^req_/);
        assert.equal(error.error.request_id, error.requestID);
        return true;
      });
    });
  }
}

test('documents of text are read', async () => {
  const short = await create({ max_tokens: 1 });
  const long = await create({
    max_tokens: 1,
    messages: user(
      { type: 'document', source: { type: 'text', media_type: 'text/plain', data: 'The folder is called reports and holds many files.' }, title: 'Notes' },
      { type: 'text', text: 'list files by size' },
    ),
  });
  assert.ok(prompt(long) > prompt(short) + 10);
});

test('an unknown model is a NotFoundError that names those there are', async () => {
  await assert.rejects(create({ model: 'claude-none' }), (error) => {
    assert.ok(error instanceof Anthropic.NotFoundError, String(error));
    assert.equal(error.type, 'not_found_error');
    assert.match(error.message, /claude-none.*hearth-nano-0/);
    return true;
  });
});

test('with an API key set, both ways to present it count, and others get an AuthenticationError', async () => {
  const key = 'a-key-of-twenty-characters';
  const guarded = await startHearth({ env: { HEARTH_API_KEY: key } });
  try {
    const client = (options) => new Anthropic({ baseURL: guarded.url, apiKey: null, authToken: null, maxRetries: 0, ...options });
    const request = { model, max_tokens: 4, messages: question };
    for (const options of [{ apiKey: key }, { authToken: key }]) assert.ok((await client(options).messages.create(request)).usage.output_tokens > 0);
    for (const options of [{ apiKey: 'none' }, { authToken: 'none' }]) {
      for (const call of [(c) => c.messages.create(request), (c) => c.messages.countTokens({ model, messages: question }), (c) => c.models.list()]) {
        await assert.rejects(call(client(options)), (error) => {
          assert.ok(error instanceof Anthropic.AuthenticationError, String(error));
          assert.equal(error.type, 'authentication_error');
          return true;
        });
      }
    }
  } finally {
    await guarded.stop();
  }
});

test('an Anthropic endpoint gets the client\'s version, betas and unknown fields, and the client its very bytes', async () => {
  const frames = [
    ['message_start', { message: { id: 'msg_1', type: 'message', role: 'assistant', model: 'theirs', content: [], stop_reason: null, stop_sequence: null, usage: { input_tokens: 3, output_tokens: 1, service_tier: 'priority' } } }],
    ['content_block_start', { index: 0, content_block: { type: 'thinking', thinking: '', signature: '' } }],
    ['content_block_delta', { index: 0, delta: { type: 'thinking_delta', thinking: 'Hm.' } }],
    ['content_block_delta', { index: 0, delta: { type: 'signature_delta', signature: 'EqQBCgIYAhIM' } }],
    ['content_block_stop', { index: 0 }],
    ['content_block_start', { index: 1, content_block: { type: 'text', text: '' } }],
    ['content_block_delta', { index: 1, delta: { type: 'text_delta', text: 'hello' } }],
    ['content_block_stop', { index: 1 }],
    ['message_delta', { delta: { stop_reason: 'end_turn', stop_sequence: null }, usage: { output_tokens: 4 } }],
    ['message_stop', {}],
  ].map(([type, rest]) => `event: ${type}\ndata: ${JSON.stringify({ type, ...rest })}\n\n`).join('');
  const asked = [];
  const server = createServer(async (request, response) => {
    const chunks = await collect(request);
    asked.push({ url: request.url, headers: request.headers, body: JSON.parse(Buffer.concat(chunks).toString()) });
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.end(frames);
  });
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
  server.unref();
  const front = await startHearth({
    config: `[models.theirs]\nkind = "anthropic"\nurl = "http://127.0.0.1:${server.address().port}/v1"\napi_key = "the-key-of-their-side"\n`,
  });
  try {
    const client = new Anthropic({ baseURL: front.url, apiKey: 'ours', maxRetries: 0 });
    const body = { model: 'theirs', max_tokens: 9, messages: ask('hello'), stream: true, thinking: { type: 'enabled', budget_tokens: 1024 }, container: 'c1' };
    const version = '2023-06-01';
    const response = await client.beta.messages.create({ ...body, betas: ['a-beta-2026-01-01'] }, { headers: { 'anthropic-version': version } }).asResponse();
    assert.equal(await response.text(), frames);
    const [{ url, headers, body: sent }] = asked;
    assert.equal(new URL(url, front.url).pathname, '/v1/messages');
    assert.equal(headers['x-api-key'], 'the-key-of-their-side');
    assert.equal(headers['anthropic-beta'], 'a-beta-2026-01-01');
    assert.equal(headers['anthropic-version'], version);
    assert.deepEqual(sent, body);
    const { content } = await client.messages.stream(body).finalMessage();
    assert.deepEqual(content.map(({ type }) => type), ['thinking', 'text']);
    assert.equal(content[0].signature, 'EqQBCgIYAhIM');
    // What came goes back as it was.
    await collect(await client.messages.create({ ...body, messages: [...ask('hello'), { role: 'assistant', content }, ...ask('and?')] }));
    assert.deepEqual(asked.at(-1).body.messages[1].content, content);
  } finally {
    await front.stop();
    server.close();
  }
});
