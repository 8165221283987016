// What the official ollama package sees when it talks to hearth.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Ollama } from 'ollama';
import { ask, bashTool, collect, model, startHearth, until } from './hearth.mjs';

const question = ask('list files by size');
const options = { temperature: 0, num_predict: 100 };
let hearth, ollama;

before(async () => {
  // Two models, so that one can leave and come back.
  hearth = await startHearth({ config: `[models.${model}]\npath = "embedded:"\npinned = true\n[models.second]\npath = "embedded:"\naliases = ["other"]\n` });
  ollama = new Ollama({ host: hearth.url });
});
after(async () => {
  const exit = await hearth?.stop();
  assert.equal(exit, 0, `hearth ended with ${exit}:\n${hearth?.log()}`);
});

const chat = (parameters) => ollama.chat({ model, messages: question, options, ...parameters });
const generate = (parameters) => ollama.generate({ model, prompt: question[0].content, options, ...parameters });

function checkEnd(last) {
  assert.equal(last.done, true);
  assert.equal(last.model, model);
  assert.ok(Date.parse(last.created_at) > 0);
  for (const key of ['total_duration', 'load_duration', 'prompt_eval_count', 'prompt_eval_duration', 'eval_count', 'eval_duration']) {
    assert.ok(Number.isInteger(last[key]) && last[key] >= 0, `${key} is ${last[key]}`);
  }
  assert.ok(last.prompt_eval_count > 5 && last.eval_count > 1);
  const parts = last.load_duration + last.prompt_eval_duration + last.eval_duration;
  assert.ok(parts > 0 && parts <= last.total_duration, 'nanoseconds that fit into the whole');
}

test('chat answers whole and streamed alike, with counts and durations', async () => {
  const whole = await chat();
  assert.equal(whole.message.role, 'assistant');
  assert.ok(whole.message.content.length > 0);
  assert.equal(whole.done_reason, 'stop');
  checkEnd(whole);
  const parts = await collect(await chat({ stream: true }));
  assert.ok(parts.length > 3, 'text comes in pieces');
  assert.ok(parts.slice(0, -1).every(({ done, message }) => done === false && message.role === 'assistant'));
  assert.equal(parts.map(({ message }) => message.content).join(''), whole.message.content);
  checkEnd(parts.at(-1));
  assert.equal(parts.at(-1).eval_count, whole.eval_count);
});

test('generate answers whole, streamed and raw', async () => {
  const whole = await generate();
  assert.equal(whole.response, (await chat()).message.content);
  checkEnd(whole);
  const parts = await collect(await generate({ stream: true }));
  assert.equal(parts.map(({ response }) => response).join(''), whole.response);
  checkEnd(parts.at(-1));
  const system = await generate({ system: 'You write shell commands.' });
  assert.ok(system.prompt_eval_count > whole.prompt_eval_count);
  const raw = await generate({ prompt: 'find . -', raw: true });
  assert.ok(raw.prompt_eval_count < whole.prompt_eval_count, 'no template around it');
});

test('a limit and a stop string end the answer', async () => {
  const cut = await chat({ options: { ...options, num_predict: 2 } });
  assert.deepEqual([cut.done_reason, cut.eval_count], ['length', 2]);
  const { content } = (await chat()).message;
  const stop = content.slice(5, 9);
  const stopped = await chat({ options: { ...options, stop: [stop] } });
  assert.equal(stopped.message.content, content.slice(0, content.indexOf(stop)));
  assert.equal(stopped.done_reason, 'stop');
});

test('a tool call comes whole, its arguments an object, and its result goes back', async () => {
  for (const stream of [false, true]) {
    const parts = stream ? await collect(await chat({ tools: [bashTool], stream })) : [await chat({ tools: [bashTool] })];
    const calls = parts.flatMap(({ message }) => message.tool_calls ?? []);
    assert.equal(calls.length, 1);
    assert.equal(calls[0].function.name, 'bash');
    assert.equal(typeof calls[0].function.arguments.command, 'string');
    checkEnd(parts.at(-1));
    for (const named of [{ tool_name: 'bash' }, {}]) {
      const answer = await chat({
        tools: [bashTool],
        messages: [...question, { role: 'assistant', content: '', tool_calls: calls }, { role: 'tool', content: 'a.txt', ...named }],
      });
      assert.ok(answer.message.content || answer.message.tool_calls.length > 0);
      assert.ok(answer.prompt_eval_count > parts.at(-1).prompt_eval_count + 5);
    }
  }
});

test('format holds the answer to JSON or to a schema', async () => {
  const schema = {
    type: 'object',
    properties: { kind: { type: 'string', enum: ['file', 'folder'] }, dangerous: { type: 'boolean' } },
    required: ['kind', 'dangerous'],
  };
  const value = JSON.parse((await chat({ format: schema })).message.content);
  assert.ok(['file', 'folder'].includes(value.kind) && typeof value.dangerous === 'boolean');
  assert.ok(JSON.parse((await generate({ format: schema })).response).kind);
  assert.equal(typeof JSON.parse((await chat({ format: 'json', options: { ...options, num_predict: 400 } })).message.content), 'object');
});

test('embed takes one text or several', async () => {
  const { embeddings, prompt_eval_count: tokens } = await ollama.embed({ model, input: ['list files', 'remove a folder', 'list files'] });
  assert.deepEqual(embeddings.map((vector) => vector.length), [256, 256, 256]);
  assert.ok(tokens > 3);
  const distance = (a, b) => Math.hypot(...a.map((value, at) => value - b[at]));
  assert.ok(distance(embeddings[0], embeddings[2]) < 1e-3 && distance(embeddings[0], embeddings[1]) > 1e-2);
  const single = await ollama.embed({ model, input: 'list files' });
  assert.ok(distance(single.embeddings[0], embeddings[0]) < 1e-3);
  assert.equal((await ollama.embed({ model, input: 'list files', dimensions: 64 })).embeddings[0].length, 64);
  const { embedding } = await ollama.embeddings({ model, prompt: 'list files' });
  assert.ok(distance(embedding, embeddings[0]) < 1e-3);
});

test('list, show and version say what apps look for', async () => {
  const { models } = await ollama.list();
  assert.deepEqual(models.map(({ name }) => name).sort(), [model, 'second']);
  for (const entry of models) {
    assert.equal(entry.model, entry.name);
    assert.ok(entry.size > 1e6 && entry.digest.length > 10 && Date.parse(entry.modified_at) > 0);
    assert.equal(entry.details.family, 'llama');
    assert.deepEqual([entry.details.parameter_size, entry.details.quantization_level], ['3.5M', 'F16']);
  }
  const shown = await ollama.show({ model });
  assert.deepEqual(shown.capabilities.sort(), ['completion', 'embedding', 'tools']);
  assert.equal(shown.model_info['general.architecture'], 'llama');
  assert.equal(shown.model_info['llama.context_length'], 2048);
  await assert.rejects(ollama.show({ model: 'no-such-model' }), (error) => error.status_code === 404);
  assert.match((await ollama.version()).version, /^0\.\d+\.\d+$/);
});

test('names with :latest and aliases mean the same model', async () => {
  for (const name of [`${model}:latest`, 'other', 'other:latest']) assert.ok((await chat({ model: name })).message.content.length > 0, name);
  assert.ok((await ollama.show({ model: `${model}:latest` })).model_info);
});

test('keep_alive loads and unloads, and ps follows', async () => {
  const loaded = async (name) => (await ollama.ps()).models.find((entry) => entry.name === name);
  const unload = await ollama.generate({ model: 'second', prompt: '', keep_alive: 0 });
  assert.deepEqual([unload.done, unload.done_reason], [true, 'unload']);
  assert.equal(await loaded('second'), undefined);
  const load = await ollama.chat({ model: 'second', messages: [], keep_alive: '10m' });
  assert.deepEqual([load.done, load.done_reason], [true, 'load']);
  const entry = await loaded('second');
  assert.ok(entry.size > 1e6 && entry.size_vram >= 0 && entry.context_length === 2048);
  const left = Date.parse(entry.expires_at) - Date.now();
  assert.ok(left > 0 && left <= 600_000, `stays for ${left} ms`);
  await ollama.generate({ model: 'second', prompt: 'list files', options, keep_alive: -1 });
  assert.ok(Date.parse((await loaded('second')).expires_at) > Date.now() + 1e11, 'for ever');
  await ollama.generate({ model: 'second', prompt: 'list files', options, keep_alive: 0 });
  await until(async () => (await loaded('second')) === undefined, 'the second model to leave');
  assert.ok(await loaded(model));
});

const wrong = [
  ['a model that is not there', { model: 'no-such-model' }, 404, /no-such-model.*hearth-nano-0/],
  ['a prompt over the context: nothing is cut in silence', { messages: ask('word '.repeat(5000)) }, 400, /2048.*50\d\d|50\d\d.*2048/],
  ['a context larger than the model was loaded with', { options: { num_ctx: 8192 } }, 400, /num_ctx.*8192.*2048/],
  ['an option of the wrong kind', { options: { temperature: 'hot' } }, 400, /options\.temperature/],
  ['an unknown role', { messages: [{ role: 'wizard', content: 'x' }] }, 400, /messages\[0\]\.role/],
  ['a result without its call', { messages: [...question, { role: 'tool', content: 'x', tool_name: 'bash' }] }, 400, /call/],
  ['a format that is none', { format: 'yaml' }, 400, /format/],
  ['an image to a text model', { messages: [{ ...question[0], images: ['iVBORw0KGgo='] }] }, 400, /image/],
  ['a keep_alive that is no duration', { keep_alive: 'soon' }, 400, /keep_alive/],
];
for (const [what, parameters, status, message] of wrong) {
  for (const stream of [false, true]) {
    test(`${what} is a ResponseError${stream ? ', also when streamed' : ''}`, async () => {
      await assert.rejects(chat({ ...parameters, stream }), (error) => {
        assert.equal(error.name, 'ResponseError', String(error));
        assert.equal(error.status_code, status);
        assert.match(error.message, message);
        return true;
      });
    });
  }
}

test('what needs a registry says what to do instead', async () => {
  for (const call of [() => ollama.pull({ model: 'llama3.2' }), () => ollama.push({ model }), () => ollama.create({ model: 'x', from: model }), () => ollama.delete({ model })]) {
    await assert.rejects(call(), (error) => {
      assert.equal(error.name, 'ResponseError', String(error));
      assert.equal(error.status_code, 400);
      assert.match(error.message, /GGUF/);
      return true;
    });
  }
});

test('abort ends every stream of the client', async () => {
  const own = new Ollama({ host: hearth.url });
  const format = { type: 'array', items: { type: 'string', enum: ['one', 'two'] }, minItems: 400 };
  const stream = await own.chat({ model, messages: question, format, options: { num_predict: 1500 }, stream: true });
  let seen = 0;
  await assert.rejects(async () => {
    for await (const part of stream) if (part && ++seen === 3) own.abort();
  }, { name: 'AbortError' });
  await until(async () => (await hearth.models()).every(({ running }) => running === 0), 'nothing running');
});
