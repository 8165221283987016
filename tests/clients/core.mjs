// What every client has to get from every back end: text, streams, a tools round trip, errors, aborts.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bash } from './clients.mjs';
import { until } from './hearth.mjs';

export const question = 'list files by size';
const endless = {
  name: 'write',
  description: 'Write a long text',
  schema: {
    type: 'object',
    properties: { words: { type: 'array', items: { type: 'string', enum: ['one', 'two'] }, minItems: 400 } },
    required: ['words'],
    additionalProperties: false,
  },
};

// `client` and `hearth` are functions, because both exist only when the tests run. `expected` is what each client must get alike: { text, input }, the
// answer and the arguments of the tool call.
export function coreSuite(what, { client, hearth, model, expected }) {
  const answer = (options) => client().answer({ model, ...options });

  for (const stream of [false, true]) {
    const how = stream ? ', streamed' : '';

    test(`${what}: text${how}`, async () => {
      let pieces = 0;
      const said = await answer({ conversation: client().ask(question), stream, onText: () => pieces++ });
      assert.equal(said.text, expected().text);
      assert.deepEqual(said.calls, []);
      assert.equal(said.why, 'stop');
      assert.ok(said.input > 4 && said.output > 1, `${said.input} and ${said.output} tokens`);
      if (stream) assert.ok(pieces > 1, 'the text comes in pieces');
    });

    test(`${what}: a limit cuts the answer and says so${how}`, async () => {
      const said = await answer({ conversation: client().ask(question), stream, limit: 2 });
      assert.equal(said.why, 'length');
      assert.equal(said.output, 2);
    });

    test(`${what}: a tool is called, its result goes back and is answered${how}`, async () => {
      const conversation = client().ask(question);
      const first = await answer({ conversation, tools: [bash], stream });
      assert.equal(first.why, 'tools');
      assert.equal(first.calls.length, 1);
      assert.equal(first.calls[0].name, 'bash');
      assert.deepEqual(first.calls[0].input, expected().input);
      conversation.push(...first.turn, ...client().result(first.calls[0], 'a.txt\nb.txt\nc.txt'));
      const second = await answer({ conversation, tools: [bash], stream });
      assert.ok(second.text || second.calls.length > 0);
      assert.ok(second.input > first.input + 5, 'the call and its result are part of the prompt');
      if (expected().after) assert.equal(second.text, expected().after);
    });

    test(`${what}: a model that is not there, and a prompt that does not fit${how}`, async () => {
      const failure = async (options) => {
        try {
          await answer({ stream, ...options });
        } catch (error) {
          return client().error(error);
        }
        return assert.fail('it was answered');
      };
      const missing = await failure({ conversation: client().ask(question), model: 'no-such-model' });
      assert.ok(missing.expected, missing.message);
      assert.equal(missing.status, 404);
      assert.match(missing.message, /no-such-model/);
      const long = await failure({ conversation: client().ask('word '.repeat(5000)) });
      assert.ok(long.expected, long.message);
      assert.equal(long.status, 400);
      assert.match(long.message, /\d{3}.*\d{3}/s, 'the message has both numbers');
    });
  }

  test(`${what}: a client that leaves in mid-stream frees the engine`, async () => {
    const leave = new AbortController();
    let pieces = 0;
    await assert.rejects(
      answer({
        conversation: client().ask('write for ever'),
        tools: [endless],
        must: endless.name,
        stream: true,
        limit: 1500,
        signal: leave.signal,
        onText: () => ++pieces === 3 && leave.abort(),
      }),
      (error) => client().aborted(error) || assert.fail(error),
    );
    assert.ok(pieces >= 3 && pieces < 1000, `${pieces} pieces`);
    const free = async () => (await hearth().models()).find(({ id }) => id === model).running === 0;
    await until(free, `${model} to have nothing running`, 10_000);
    // And it still answers.
    assert.equal((await answer({ conversation: client().ask(question) })).text, expected().text);
  });
}
