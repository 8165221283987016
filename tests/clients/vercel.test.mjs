// What Vercel's AI SDK sees when it talks to hearth, through either provider.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createAnthropic } from '@ai-sdk/anthropic';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { APICallError, embedMany, generateText, Output, stepCountIs, streamText, tool } from 'ai';
import { z } from 'zod';
import { model, startHearth } from './hearth.mjs';

globalThis.AI_SDK_LOG_WARNINGS = false;
const prompt = 'list files by size';
const url = 'http://127.0.0.1';
let hearth;

// The address is known only once hearth runs.
const provider = (make, options) => (name) => make({ baseURL: `${hearth.url}/v1`, apiKey: 'none', ...options })(name);
const providers = {
  'openai-compatible': provider(createOpenAICompatible, { name: 'hearth', includeUsage: true, supportsStructuredOutputs: true }),
  anthropic: provider(createAnthropic),
};

before(async () => {
  hearth = await startHearth();
  assert.ok(hearth.url.startsWith(url));
});
after(async () => {
  const exit = await hearth?.stop();
  assert.equal(exit, 0, `hearth ended with ${exit}:\n${hearth?.log()}`);
});

for (const [name, of] of Object.entries(providers)) {
  const call = (parameters) => ({ model: of(model), prompt, temperature: 0, maxOutputTokens: 100, maxRetries: 0, ...parameters });
  const bash = (commands) =>
    tool({
      description: 'Run a shell command',
      inputSchema: z.object({ command: z.string() }),
      execute: async ({ command }) => `ran ${commands.push(command)}`,
    });

  test(`${name}: generateText and streamText say the same, with usage and a reason`, async () => {
    const whole = await generateText(call());
    assert.ok(whole.text.length > 0);
    assert.equal(whole.finishReason, 'stop');
    assert.ok(whole.usage.inputTokens > 5 && whole.usage.outputTokens > 1);
    assert.equal(whole.response.modelId, model);
    const stream = streamText(call());
    let pieces = 0, text = '';
    for await (const piece of stream.textStream) {
      text += piece;
      pieces++;
    }
    assert.equal(text, whole.text);
    assert.ok(pieces > 1);
    assert.equal(await stream.finishReason, 'stop');
    assert.deepEqual([(await stream.usage).inputTokens, (await stream.usage).outputTokens], [whole.usage.inputTokens, whole.usage.outputTokens]);
  });

  test(`${name}: a loop of several steps calls our function and goes on`, async () => {
    for (const stream of [false, true]) {
      const commands = [];
      const parameters = call({ tools: { bash: bash(commands) }, stopWhen: stepCountIs(3) });
      let steps;
      if (stream) {
        const result = streamText({ ...parameters, onError: ({ error }) => assert.fail(error) });
        await result.consumeStream();
        steps = await result.steps;
      } else {
        ({ steps } = await generateText(parameters));
      }
      assert.ok(steps.length >= 2, 'the result was sent and answered');
      assert.equal(steps[0].finishReason, 'tool-calls');
      assert.equal(steps[0].toolResults[0].output, 'ran 1');
      assert.ok(commands.length >= 1 && commands.every((command) => typeof command === 'string'));
      assert.ok(steps[1].usage.inputTokens > steps[0].usage.inputTokens + 5);
    }
  });

  test(`${name}: tool choices are obeyed`, async () => {
    const tools = { bash: tool({ description: 'Run a shell command', inputSchema: z.object({ command: z.string() }) }) };
    for (const toolChoice of ['required', { type: 'tool', toolName: 'bash' }]) {
      const { toolCalls } = await generateText(call({ tools, toolChoice }));
      assert.equal(toolCalls.length, 1);
      assert.equal(typeof toolCalls[0].input.command, 'string');
    }
    assert.equal((await generateText(call({ tools, toolChoice: 'none' }))).toolCalls.length, 0);
  });

  test(`${name}: output follows a schema`, async () => {
    const output = Output.object({ schema: z.object({ kind: z.enum(['file', 'folder']), dangerous: z.boolean() }) });
    const { output: value } = await generateText(call({ output }));
    assert.ok(['file', 'folder'].includes(value.kind) && typeof value.dangerous === 'boolean');
    const stream = streamText(call({ output }));
    await stream.consumeStream();
    assert.deepEqual(await stream.output, value);
  });

  test(`${name}: a limit is a reason to finish`, async () => {
    const answer = await generateText(call({ maxOutputTokens: 2 }));
    assert.equal(answer.finishReason, 'length');
    assert.equal(answer.usage.outputTokens, 2);
  });

  const wrong = [
    ['a model that is not there', { model: of }, 404, /no-such-model.*hearth-nano-0/],
    ['a prompt over the context', { prompt: 'word '.repeat(5000) }, 400, /\d{4}.*\d{4}/],
    ['an image to a text model', { prompt: [{ role: 'user', content: [{ type: 'image', image: Buffer.from('iVBORw0KGgo=', 'base64'), mediaType: 'image/png' }] }] }, 400, /image/],
  ];
  for (const [what, { model: missing, ...parameters }, status, message] of wrong) {
    test(`${name}: ${what} is an APICallError that is not tried again`, async () => {
      const request = () => call({ ...parameters, maxRetries: 2, ...(missing && { model: missing('no-such-model') }) });
      const check = (error) => {
        assert.ok(APICallError.isInstance(error), String(error));
        assert.equal(error.statusCode, status);
        assert.equal(error.isRetryable, false);
        assert.match(error.message, message);
        return true;
      };
      await assert.rejects(generateText(request()), check);
      let seen;
      const stream = streamText({ ...request(), onError: ({ error }) => (seen = error) });
      await stream.consumeStream();
      check(seen);
    });
  }

  test(`${name}: an abort ends a stream`, async () => {
    const leave = new AbortController();
    const words = z.object({ words: z.array(z.enum(['one', 'two'])).min(400) });
    const stream = streamText(call({
      tools: { write: tool({ description: 'Write', inputSchema: words }) },
      toolChoice: { type: 'tool', toolName: 'write' },
      maxOutputTokens: 1500,
      abortSignal: leave.signal,
    }));
    const types = [];
    for await (const { type } of stream.fullStream) {
      types.push(type);
      if (type === 'tool-input-delta') leave.abort();
    }
    assert.equal(types.at(-1), 'abort');
  });
}

test('openai-compatible: embeddings', async () => {
  const embedding = createOpenAICompatible({ name: 'hearth', baseURL: `${hearth.url}/v1` }).textEmbeddingModel(model);
  const { embeddings, usage } = await embedMany({ model: embedding, values: ['list files', 'remove a folder'] });
  assert.deepEqual(embeddings.map((vector) => vector.length), [256, 256]);
  assert.ok(usage.tokens > 2);
});
