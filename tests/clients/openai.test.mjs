// What the official openai package sees when it talks to hearth.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import OpenAI from 'openai';
import { ask, bashTool, collect, startHearth, until } from './hearth.mjs';

const model = 'hearth-nano-0';
const question = ask('list files by size');
let hearth, openai;

before(async () => {
  hearth = await startHearth();
  openai = hearth.client();
});
after(async () => {
  const exit = await hearth?.stop();
  assert.equal(exit, 0, `hearth ended with ${exit}:\n${hearth?.log()}`);
});

const chat = (parameters, options) => openai.chat.completions.create({ model, messages: question, ...parameters }, options);
const textOf = (chunks, choice = 0) =>
  chunks.flatMap((chunk) => chunk.choices).filter((c) => c.index === choice).map((c) => c.delta.content ?? '').join('');

test('a plain answer has text, a finish reason and usage that adds up', async () => {
  const answer = await chat({ temperature: 0, max_tokens: 60 });
  assert.equal(answer.object, 'chat.completion');
  assert.equal(answer.model, model);
  assert.match(answer.id, /^chatcmpl-/);
  assert.equal(answer.choices.length, 1);
  assert.equal(answer.choices[0].message.role, 'assistant');
  assert.ok(answer.choices[0].message.content.length > 0);
  assert.equal(answer.choices[0].finish_reason, 'stop');
  assert.ok(answer.usage.prompt_tokens > 0 && answer.usage.completion_tokens > 0);
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
  assert.ok(answer._request_id, 'the answer carries x-request-id');
});

test('a streamed answer is the same text, starts with the role and ends with one finish reason', async () => {
  const whole = await chat({ temperature: 0, max_tokens: 60 });
  const chunks = await collect(await chat({ temperature: 0, max_tokens: 60, stream: true }));
  assert.equal(textOf(chunks), whole.choices[0].message.content);
  assert.equal(chunks[0].choices[0].delta.role, 'assistant');
  assert.ok(chunks.length > 3, 'text comes in several chunks');
  const reasons = chunks.flatMap((chunk) => chunk.choices).map((choice) => choice.finish_reason);
  assert.deepEqual(reasons.filter((reason) => reason !== null), ['stop']);
  assert.equal(reasons.at(-1), 'stop');
  assert.ok(reasons.every((reason) => reason !== undefined), 'finish_reason is null, not absent, before the end');
  assert.equal(new Set(chunks.map((chunk) => chunk.id)).size, 1);
  assert.ok(chunks.every((chunk) => chunk.object === 'chat.completion.chunk' && chunk.model === model));
});

test('include_usage adds one chunk without choices, and null before it', async () => {
  const chunks = await collect(await chat({ max_tokens: 8, stream: true, stream_options: { include_usage: true } }));
  const last = chunks.at(-1);
  assert.deepEqual(last.choices, []);
  assert.ok(last.usage.prompt_tokens > 0 && last.usage.completion_tokens > 0);
  assert.ok(chunks.slice(0, -1).every((chunk) => chunk.usage === null));
  const without = await collect(await chat({ max_tokens: 8, stream: true }));
  assert.ok(without.every((chunk) => chunk.choices.length === 1 && !chunk.usage));
});

test('the stream helper assembles text', async () => {
  const runner = openai.chat.completions.stream({ model, messages: question, temperature: 0, max_tokens: 60 });
  let seen = '';
  runner.on('content', (delta) => (seen += delta));
  const final = await runner.finalChatCompletion();
  assert.equal(final.choices[0].message.content, seen);
  assert.equal(final.choices[0].finish_reason, 'stop');
});

test('max_tokens cuts the answer and says so', async () => {
  const answer = await chat({ max_completion_tokens: 2, max_tokens: 50, temperature: 0 });
  assert.equal(answer.choices[0].finish_reason, 'length');
  assert.equal(answer.usage.completion_tokens, 2);
});

function assertBashCall(call) {
  assert.equal(call.type, 'function');
  assert.equal(call.function.name, 'bash');
  assert.ok(call.id.length > 0);
  const input = JSON.parse(call.function.arguments);
  assert.equal(typeof input.command, 'string');
}

test('a tool call comes whole', async () => {
  const answer = await chat({ temperature: 0, tools: [bashTool] });
  assert.equal(answer.choices[0].finish_reason, 'tool_calls');
  assert.equal(answer.choices[0].message.tool_calls.length, 1);
  assertBashCall(answer.choices[0].message.tool_calls[0]);
});

test('a streamed tool call announces id, type and name first, then argument fragments', async () => {
  const chunks = await collect(await chat({ temperature: 0, tools: [bashTool], stream: true }));
  const deltas = chunks.flatMap((chunk) => chunk.choices).flatMap((choice) => choice.delta.tool_calls ?? []);
  assert.ok(deltas.length > 1, 'arguments come in fragments');
  const [first, ...rest] = deltas;
  assert.ok(first.id && first.type === 'function' && first.function.name === 'bash');
  assert.equal(first.index, 0);
  assert.equal(first.function.arguments, '');
  for (const delta of rest) {
    assert.equal(delta.index, 0);
    assert.equal(delta.function.name, undefined);
  }
  JSON.parse(deltas.map((delta) => delta.function.arguments).join(''));
  assert.equal(chunks.at(-1).choices[0].finish_reason, 'tool_calls');
});

test('the stream helper assembles a tool call', async () => {
  const runner = openai.chat.completions.stream({ model, messages: question, temperature: 0, tools: [bashTool] });
  let done;
  runner.on('tool_calls.function.arguments.done', (event) => (done = event));
  const final = await runner.finalChatCompletion();
  assertBashCall(final.choices[0].message.tool_calls[0]);
  assert.equal(done.name, 'bash');
});

test('a tool result goes back and gets an answer', async () => {
  const first = await chat({ temperature: 0, tools: [bashTool] });
  const message = first.choices[0].message;
  const answer = await chat({
    temperature: 0,
    tools: [bashTool],
    max_tokens: 200,
    messages: [...question, message, { role: 'tool', tool_call_id: message.tool_calls[0].id, content: 'a.txt\nb.txt' }],
  });
  assert.ok(answer.choices[0].message.content || answer.choices[0].message.tool_calls?.length > 0);
  assert.ok(answer.usage.prompt_tokens > first.usage.prompt_tokens, 'the result is part of the prompt');
});

test('the tool runner calls our function with the parsed arguments', async () => {
  const commands = [];
  const runner = openai.chat.completions.runTools(
    {
      model,
      messages: question,
      temperature: 0,
      max_tokens: 200,
      tools: [
        {
          type: 'function',
          function: {
            ...bashTool.function,
            parse: JSON.parse,
            function: ({ command }) => {
              commands.push(command);
              return 'done';
            },
          },
        },
      ],
    },
    { maxChatCompletions: 2 },
  );
  await runner.done();
  assert.ok(commands.length >= 1);
  assert.ok(commands.every((command) => typeof command === 'string'));
});

test('tool_choice none, required and by name are obeyed', async () => {
  const none = await chat({ temperature: 0, tools: [bashTool], tool_choice: 'none', max_tokens: 60 });
  assert.equal(none.choices[0].message.tool_calls?.length ?? 0, 0);
  assert.notEqual(none.choices[0].finish_reason, 'tool_calls');
  for (const tool_choice of ['required', { type: 'function', function: { name: 'bash' } }]) {
    const answer = await chat({ temperature: 0, tools: [bashTool], tool_choice });
    assertBashCall(answer.choices[0].message.tool_calls[0]);
  }
});

function assertLogprobs(content, text, alternatives) {
  assert.equal(content.map((entry) => entry.token).join(''), text);
  for (const entry of content) {
    assert.ok(entry.logprob <= 0 && Number.isFinite(entry.logprob));
    assert.deepEqual(entry.bytes, [...Buffer.from(entry.token)]);
    assert.equal(entry.top_logprobs.length, alternatives);
    assert.deepEqual(entry.top_logprobs.map((t) => t.logprob), entry.top_logprobs.map((t) => t.logprob).sort((a, b) => b - a));
    assert.ok(Math.abs(entry.top_logprobs[0].logprob - entry.logprob) < 1e-4, 'greedy chooses the most likely token');
  }
}

test('logprobs belong to the text, with the alternatives asked for', async () => {
  const parameters = { temperature: 0, max_tokens: 6, logprobs: true, top_logprobs: 3 };
  const answer = await chat(parameters);
  assertLogprobs(answer.choices[0].logprobs.content, answer.choices[0].message.content, 3);
  const chunks = await collect(await chat({ ...parameters, stream: true }));
  const streamed = chunks.flatMap((chunk) => chunk.choices).flatMap((choice) => choice.logprobs?.content ?? []);
  assertLogprobs(streamed, answer.choices[0].message.content, 3);
});

test('n choices are separate answers', async () => {
  const parameters = { n: 2, temperature: 1.5, seed: 7, max_tokens: 40 };
  const answer = await chat(parameters);
  assert.deepEqual(answer.choices.map((choice) => choice.index), [0, 1]);
  assert.notEqual(answer.choices[0].message.content, answer.choices[1].message.content);
  const chunks = await collect(await chat({ ...parameters, stream: true }));
  for (const index of [0, 1]) {
    const own = chunks.flatMap((chunk) => chunk.choices).filter((choice) => choice.index === index);
    assert.equal(own[0].delta.role, 'assistant');
    assert.equal(own.filter((choice) => choice.finish_reason !== null).length, 1);
  }
});

test('a stop string ends the answer and is not part of it', async () => {
  const whole = (await chat({ temperature: 0, max_tokens: 60 })).choices[0].message.content;
  const stop = whole.slice(5, 9);
  const expected = whole.slice(0, whole.indexOf(stop));
  const answer = await chat({ temperature: 0, max_tokens: 60, stop });
  assert.equal(answer.choices[0].message.content, expected);
  assert.equal(answer.choices[0].finish_reason, 'stop');
  const chunks = await collect(await chat({ temperature: 0, max_tokens: 60, stop: ['never this', stop], stream: true }));
  assert.equal(textOf(chunks), expected);
});

test('a seed gives the same answer again, other seeds others', async () => {
  const answers = [];
  for (const seed of [1, 1, 2, 3, 4]) answers.push((await chat({ seed, temperature: 1.2, max_tokens: 40 })).choices[0].message.content);
  assert.equal(answers[0], answers[1]);
  assert.ok(new Set(answers).size > 1);
});

test('json_schema output obeys the schema, streamed and whole', async () => {
  const schema = {
    type: 'object',
    properties: {
      dangerous: { type: 'boolean' },
      kind: { enum: ['file', 'folder', 'network'] },
      flags: { type: 'array', items: { enum: ['-a', '-l', '-r'] }, minItems: 1, maxItems: 3 },
    },
    required: ['dangerous', 'kind', 'flags'],
    additionalProperties: false,
  };
  const parameters = { max_tokens: 200, seed: 3, response_format: { type: 'json_schema', json_schema: { name: 'command', strict: true, schema } } };
  const chunks = await collect(await chat({ ...parameters, stream: true }));
  for (const text of [(await chat(parameters)).choices[0].message.content, textOf(chunks)]) {
    const value = JSON.parse(text);
    assert.deepEqual(Object.keys(value).sort(), ['dangerous', 'flags', 'kind']);
    assert.equal(typeof value.dangerous, 'boolean');
    assert.ok(schema.properties.kind.enum.includes(value.kind));
    assert.ok(value.flags.length >= 1 && value.flags.length <= 3 && value.flags.every((flag) => ['-a', '-l', '-r'].includes(flag)));
  }
});

test('json_object output is an object', async () => {
  const answer = await chat({ temperature: 0, max_tokens: 400, response_format: { type: 'json_object' } });
  const value = JSON.parse(answer.choices[0].message.content);
  assert.equal(typeof value, 'object');
  assert.ok(value !== null && !Array.isArray(value));
});

test('logit_bias decides between tokens', async () => {
  const h = 104;  // the token "h" of the built-in model's vocabulary
  const answer = await chat({ temperature: 0, max_tokens: 4, logit_bias: { [h]: 100 } });
  assert.equal(answer.choices[0].message.content, 'hhhh');
});

test('the completions API answers, streams, and takes several prompts', async () => {
  const answer = await openai.completions.create({ model, prompt: 'find . -', max_tokens: 8, temperature: 0, logprobs: 2 });
  assert.equal(answer.object, 'text_completion');
  assert.ok(answer.choices[0].text.length > 0);
  const { tokens, token_logprobs: logprobs, top_logprobs: top } = answer.choices[0].logprobs;
  assert.equal(tokens.length, logprobs.length);
  assert.equal(tokens.length, top.length);
  const chunks = await collect(await openai.completions.create({ model, prompt: 'find . -', max_tokens: 8, temperature: 0, stream: true }));
  assert.equal(chunks.flatMap((chunk) => chunk.choices).map((choice) => choice.text).join(''), answer.choices[0].text);
  const two = await openai.completions.create({ model, prompt: ['find . -', 'tar -'], max_tokens: 4, temperature: 0 });
  assert.deepEqual(two.choices.map((choice) => choice.index), [0, 1]);
});

test('models are listed and retrieved', async () => {
  const models = await collect(await openai.models.list());
  assert.deepEqual(models.map((entry) => entry.id), [model]);
  assert.equal(models[0].object, 'model');
  assert.ok(models[0].created > 0 && typeof models[0].owned_by === 'string');
  assert.equal((await openai.models.retrieve(model)).id, model);
  await assert.rejects(openai.models.retrieve('no-such-model'), OpenAI.NotFoundError);
});

test('an unknown model is a NotFoundError that names those there are', async () => {
  await assert.rejects(chat({ model: 'gpt-none' }), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError, String(error));
    assert.equal(error.code, 'model_not_found');
    assert.match(error.message, /gpt-none/);
    assert.match(error.message, /hearth-nano-0/);
    return true;
  });
});

const wrong = [
  ['no messages', { messages: [] }, 'messages'],
  ['an unknown role', { messages: [{ role: 'wizard', content: 'x' }] }, 'messages[0].role'],
  ['a temperature that is no number', { temperature: 'hot' }, 'temperature'],
  ['a negative max_tokens', { max_tokens: -1 }, 'max_tokens'],
  ['no choices', { n: 0 }, 'n'],
  ['too many alternatives', { logprobs: true, top_logprobs: 99 }, 'top_logprobs'],
  ['a schema that is none', { response_format: { type: 'json_schema', json_schema: { name: 'x', schema: { type: 'nonsense' } } } }, /^response_format/],
  ['an unknown output format', { response_format: { type: 'yaml' } }, /^response_format/],
];
for (const [what, parameters, param] of wrong) {
  for (const stream of [false, true]) {
    test(`${what} is a BadRequestError naming the field${stream ? ', also when streamed' : ''}`, async () => {
      await assert.rejects(chat({ ...parameters, stream }), (error) => {
        assert.ok(error instanceof OpenAI.BadRequestError, String(error));
        if (param instanceof RegExp) assert.match(error.param ?? '', param);
        else assert.equal(error.param, param);
        assert.equal(error.type, 'invalid_request_error');
        return true;
      });
    });
  }
}

test('a prompt over the context is refused with both numbers', async () => {
  await assert.rejects(chat({ messages: ask('word '.repeat(5000)) }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError, String(error));
    assert.equal(error.code, 'context_length_exceeded');
    assert.ok(error.message.match(/\d[\d,]*/g).length >= 2, error.message);
    return true;
  });
});

test('text beyond ASCII survives the way in both directions', async () => {
  const chunks = await collect(await chat({ messages: ask('größte Dateien zuerst 📁 一覧'), temperature: 1.5, seed: 5, max_tokens: 200, stream: true }));
  assert.doesNotMatch(textOf(chunks), /\uFFFD/);
});

test('leaving in mid-stream frees the engine', async () => {
  const left = () => hearth.metric('hearth_requests_total', { status: '499' });
  const [leftBefore, generatedBefore] = [await left(), await hearth.metric('hearth_engine_generated_tokens_total')];
  const wanted = 1900;
  const stream = await chat({ max_tokens: wanted, ignore_eos: true, stream: true });
  let seen = 0;
  for await (const chunk of stream) {
    assert.ok(chunk);
    if (++seen === 3) break;
  }
  stream.controller.abort();
  await until(async () => (await left()) > leftBefore, 'the request to be counted as left');
  await until(async () => (await hearth.metric('hearth_engine_requests', { state: 'running' })) === 0, 'no sequence running');
  const generated = (await hearth.metric('hearth_engine_generated_tokens_total')) - generatedBefore;
  assert.ok(generated < wanted, `${generated} tokens were generated for nobody`);
});

test('embeddings are unit vectors, in order, the same in both encodings', async () => {
  const input = ['list files', 'remove a folder', 'list files'];
  const answer = await openai.embeddings.create({ model, input });
  assert.deepEqual(answer.data.map((entry) => entry.index), [0, 1, 2]);
  const [first, second, third] = answer.data.map((entry) => entry.embedding);
  assert.equal(first.length, 256);
  assert.ok(Math.abs(Math.hypot(...first) - 1) < 1e-3);
  const distance = (a, b) => Math.hypot(...a.map((value, i) => value - b[i]));
  assert.ok(distance(first, third) < 1e-3);
  assert.ok(distance(first, second) > 1e-2);
  assert.ok(answer.usage.prompt_tokens > 0);
  const floats = await openai.embeddings.create({ model, input: input[0], encoding_format: 'float' });
  assert.ok(distance(first, floats.data[0].embedding) < 1e-3);
  const short = await openai.embeddings.create({ model, input: input[0], dimensions: 64 });
  assert.equal(short.data[0].embedding.length, 64);
  assert.ok(Math.abs(Math.hypot(...short.data[0].embedding) - 1) < 1e-3);
  await assert.rejects(openai.embeddings.create({ model, input: [] }), OpenAI.BadRequestError);
});

test('many streams at once all end properly', async () => {
  const all = await Promise.all(Array.from({ length: 24 }, (_, seed) => chat({ seed, max_tokens: 60, stream: true }).then(collect)));
  for (const chunks of all) assert.equal(chunks.flatMap((chunk) => chunk.choices).filter((choice) => choice.finish_reason).length, 1);
});
