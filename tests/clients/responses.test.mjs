// What the official openai package's Responses API, and Codex-style agents built on it, see when they talk to hearth.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import OpenAI from 'openai';
import { zodTextFormat } from 'openai/helpers/zod';
import { z } from 'zod';
import { collect, model, startHearth } from './hearth.mjs';

const question = 'list files by size';
const bash = {
  type: 'function',
  name: 'bash',
  description: 'Run a shell command',
  strict: true,
  parameters: { type: 'object', properties: { command: { type: 'string' } }, required: ['command'], additionalProperties: false },
};
let hearth, openai;

before(async () => {
  hearth = await startHearth();
  openai = hearth.client();
});
after(async () => {
  const exit = await hearth?.stop();
  assert.equal(exit, 0, `hearth ended with ${exit}:\n${hearth?.log()}`);
});

const create = (parameters, options) =>
  openai.responses.create({ model, input: question, temperature: 0, max_output_tokens: 100, ...parameters }, options);

test('a plain answer has an output, a status and usage that adds up', async () => {
  const answer = await create({ metadata: { run: '7' }, instructions: 'Be brief.', store: false });
  assert.equal(answer.object, 'response');
  assert.match(answer.id, /^resp_/);
  assert.equal(answer.model, model);
  assert.equal(answer.status, 'completed');
  assert.deepEqual([answer.error, answer.incomplete_details], [null, null]);
  assert.deepEqual(answer.metadata, { run: '7' });
  assert.equal(answer.instructions, 'Be brief.');
  assert.equal(answer.output.length, 1);
  assert.deepEqual([answer.output[0].type, answer.output[0].role, answer.output[0].status], ['message', 'assistant', 'completed']);
  assert.ok(answer.output_text.length > 0);
  const { usage } = answer;
  assert.ok(usage.input_tokens > 5 && usage.output_tokens > 1);
  assert.equal(usage.total_tokens, usage.input_tokens + usage.output_tokens);
  assert.ok(usage.input_tokens_details.cached_tokens >= 0 && usage.output_tokens_details.reasoning_tokens === 0);
});

// The order that clients rely on; gives the response that the stream ends with.
function checkOrder(events) {
  assert.deepEqual(events.map((event) => event.sequence_number), events.map((_, at) => at), 'events are numbered');
  assert.deepEqual(events.slice(0, 2).map(({ type }) => type), ['response.created', 'response.in_progress']);
  const items = [];
  for (const event of events.slice(2, -1)) {
    const item = items[event.output_index];
    if (event.type === 'response.output_item.added') {
      assert.equal(event.output_index, items.length);
      items.push({ id: event.item.id, type: event.item.type, parts: 0, said: '', open: true });
      continue;
    }
    assert.ok(item?.open, `${event.type} names an item that is there`);
    assert.equal(event.item_id ?? event.item.id, item.id);
    if (event.type === 'response.content_part.added') assert.equal(event.content_index, item.parts++);
    else if (event.content_index !== undefined) assert.ok(event.content_index < item.parts, `${event.type} names a part that is there`);
    if (event.type.endsWith('.delta')) item.said += event.delta;
    if (event.type === 'response.output_text.done') assert.equal(event.text, item.said);
    if (event.type === 'response.function_call_arguments.done') assert.equal(event.arguments, item.said);
    if (event.type === 'response.output_item.done') item.open = false;
  }
  assert.ok(items.every(({ open }) => !open), 'every item is done');
  const last = events.at(-1);
  assert.deepEqual(last.response.output.map(({ id, type }) => [id, type]), items.map(({ id, type }) => [id, type]));
  return last;
}

test('a streamed answer is the same, in the order clients rely on', async () => {
  const whole = await create();
  const events = await collect(await create({ stream: true }));
  const last = checkOrder(events);
  assert.equal(last.type, 'response.completed');
  assert.equal(last.response.usage.output_tokens, whole.usage.output_tokens);
  assert.equal(last.response.usage.input_tokens, whole.usage.input_tokens);
  const text = events.filter(({ type }) => type === 'response.output_text.delta').map(({ delta }) => delta);
  assert.ok(text.length > 2, 'text comes in pieces');
  assert.equal(text.join(''), whole.output_text);
});

test('the stream helper assembles text', async () => {
  const runner = openai.responses.stream({ model, input: question, temperature: 0 });
  let seen = '';
  runner.on('response.output_text.delta', ({ delta }) => (seen += delta));
  const final = await runner.finalResponse();
  assert.equal(final.output_text, seen);
  assert.ok(final.usage.output_tokens > 1);
});

test('a limit makes the answer incomplete and says why', async () => {
  const whole = await create({ max_output_tokens: 2 });
  const last = checkOrder(await collect(await create({ max_output_tokens: 2, stream: true })));
  assert.equal(last.type, 'response.incomplete');
  for (const answer of [whole, last.response]) {
    assert.equal(answer.status, 'incomplete');
    assert.deepEqual(answer.incomplete_details, { reason: 'max_output_tokens' });
    assert.equal(answer.usage.output_tokens, 2);
  }
});

function bashCall({ output }) {
  const calls = output.filter(({ type }) => type === 'function_call');
  assert.equal(calls.length, 1);
  assert.equal(calls[0].name, 'bash');
  assert.ok(calls[0].call_id.length > 0);
  assert.equal(typeof JSON.parse(calls[0].arguments).command, 'string');
  return calls[0];
}

test('a function call comes whole, streamed, and its output goes back', async () => {
  const first = await create({ tools: [bash] });
  const call = bashCall(first);
  const last = checkOrder(await collect(await create({ tools: [bash], stream: true })));
  assert.equal(bashCall(last.response).arguments, call.arguments);
  for (const output of ['a.txt\nb.txt', [{ type: 'input_text', text: 'a.txt' }]]) {
    const answer = await create({
      tools: [bash],
      input: [{ role: 'user', content: question }, ...first.output, { type: 'function_call_output', call_id: call.call_id, output }],
    });
    assert.equal(answer.status, 'completed');
    assert.ok(answer.usage.input_tokens > first.usage.input_tokens + 5);
  }
});

test('tool_choice none, required and by name are obeyed', async () => {
  const none = await create({ tools: [bash], tool_choice: 'none' });
  assert.ok(none.output.every(({ type }) => type === 'message'));
  for (const tool_choice of ['required', { type: 'function', name: 'bash' }]) bashCall(await create({ tools: [bash], tool_choice }));
});

test('structured output is what the schema says, parsed by the package', async () => {
  const format = zodTextFormat(z.object({ kind: z.enum(['file', 'folder']), dangerous: z.boolean() }), 'judgement');
  const answer = await openai.responses.parse({ model, input: question, temperature: 0, text: { format } });
  assert.ok(['file', 'folder'].includes(answer.output_parsed.kind));
  assert.equal(typeof answer.output_parsed.dangerous, 'boolean');
  const runner = openai.responses.stream({ model, input: question, temperature: 0, text: { format } });
  assert.deepEqual((await runner.finalResponse()).output_parsed, answer.output_parsed);
  const free = await create({ text: { format: { type: 'json_object' } }, max_output_tokens: 400 });
  assert.equal(typeof JSON.parse(free.output_text), 'object');
});

test('what Codex-style agents send besides: developer and system messages, host tools, reasoning, encrypted content', async () => {
  const { data: answer, response } = await create({
    instructions: 'You are an agent.',
    input: [
      { type: 'message', role: 'developer', content: [{ type: 'input_text', text: 'Write shell commands.' }] },
      { type: 'message', role: 'user', content: [{ type: 'input_text', text: 'list files' }] },
      { type: 'reasoning', id: 'rs_1', summary: [{ type: 'summary_text', text: 'Easy.' }], encrypted_content: 'abc' },
      { type: 'message', role: 'assistant', content: [{ type: 'output_text', text: 'ls', annotations: [] }] },
      { type: 'web_search_call', id: 'ws_1', status: 'completed', action: { type: 'search', query: 'ls' } },
      { type: 'message', role: 'system', content: 'Stay brief.' },
      { type: 'message', role: 'user', content: 'newest first' },
    ],
    tools: [bash, { type: 'web_search' }, { type: 'local_shell' }],
    reasoning: { effort: 'medium', summary: 'auto' },
    include: ['reasoning.encrypted_content'],
    prompt_cache_key: 'a-session',
    parallel_tool_calls: false,
    store: false,
    text: { verbosity: 'low' },
  }).withResponse();
  assert.equal(answer.status, 'completed');
  assert.deepEqual(answer.tools.map(({ name }) => name), ['bash']);
  assert.match(response.headers.get('x-hearth-tools-left-out'), /web_search.*local_shell/);
});

const wrong = [
  ['an earlier response', { previous_response_id: 'resp_1' }, 'previous_response_id', /no response is stored here/],
  ['a stored conversation', { conversation: 'conv_1' }, 'conversation', /no response is stored here/],
  ['work in the background', { background: true }, 'background', /stream/],
  ['a reference to an item', { input: [{ type: 'item_reference', id: 'msg_1' }] }, 'input[0]', /none is stored here/],
  ['an output without its call', { input: [{ type: 'function_call_output', call_id: 'call_1', output: 'x' }] }, 'input[0].call_id', /call_1/],
  ['an item of an unknown type', { input: [{ type: 'wizardry' }] }, 'input[0].type', /wizardry/],
  ['no input', { input: [] }, 'input', /empty/],
  ['a temperature that is no number', { temperature: 'hot' }, 'temperature', /number/],
  ['a schema that is none', { text: { format: { type: 'json_schema', name: 'x', schema: { type: 'nonsense' } } } }, undefined, /nonsense|schema/],
  ['a choice that is not offered', { tools: [bash], tool_choice: { type: 'function', name: 'zsh' } }, 'tool_choice.name', /zsh/],
  ['an image to a text model', { input: [{ role: 'user', content: [{ type: 'input_image', image_url: 'data:image/png;base64,iVBORw0KGgo=' }] }] }, undefined, /image/],
  ['a prompt over the context', { input: 'word '.repeat(5000) }, undefined, /\d{4}.*\d{4}/],
];
for (const [what, parameters, param, message] of wrong) {
  for (const stream of [false, true]) {
    test(`${what} is a BadRequestError that says what is wrong${stream ? ', also when streamed' : ''}`, async () => {
      await assert.rejects(create({ ...parameters, stream }), (error) => {
        assert.ok(error instanceof OpenAI.BadRequestError, String(error));
        if (param) assert.equal(error.param, param);
        assert.match(error.message, message);
        assert.ok(error.requestID);
        return true;
      });
    });
  }
}

test('an unknown model, and a response to be fetched later, are NotFoundErrors', async () => {
  await assert.rejects(create({ model: 'gpt-none' }), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError, String(error));
    assert.match(error.message, /gpt-none.*hearth-nano-0/);
    return true;
  });
  await assert.rejects(openai.responses.retrieve('resp_1'), OpenAI.NotFoundError);
});
