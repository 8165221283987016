// What the official openai package sees when things go wrong around hearth.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import OpenAI from 'openai';
import { ask, collect, startHearth, until } from './hearth.mjs';

const model = 'hearth-nano-0';
const endless = { model, messages: ask('list files by size'), max_tokens: 1900, ignore_eos: true, stream: true };

async function withHearth(options, body) {
  const hearth = await startHearth(options);
  try {
    await body(hearth);
  } finally {
    await hearth.stop();
  }
}

test('with an API key set, others get an AuthenticationError', () =>
  withHearth({ env: { HEARTH_API_KEY: 'a-key-of-twenty-characters' } }, async (hearth) => {
    const request = { model, messages: ask('list files'), max_tokens: 4 };
    for (const apiKey of ['none', 'a-key-of-twenty-characterz', 'a-key-of-twenty-character']) {
      await assert.rejects(hearth.client({ apiKey }).chat.completions.create(request), OpenAI.AuthenticationError);
      await assert.rejects(hearth.client({ apiKey }).models.list(), OpenAI.AuthenticationError);
    }
    const answer = await hearth.client({ apiKey: 'a-key-of-twenty-characters' }).chat.completions.create(request);
    assert.ok(answer.choices[0].message.content.length > 0);
    assert.ok(!hearth.log().includes('a-key-of-twenty'), 'no key in the log');
  }));

test('a worker killed in mid-stream is an APIError for that client, and the next request is served', () =>
  withHearth({}, async (hearth) => {
    const openai = hearth.client();
    const [worker, ...others] = hearth.workers();
    assert.ok(worker > 0 && others.length === 0, 'one worker process');
    let chunks = 0;
    await assert.rejects(async () => {
      for await (const chunk of await openai.chat.completions.create(endless)) {
        assert.ok(chunk);
        if (++chunks === 3) process.kill(worker, 'SIGKILL');
      }
    }, (error) => {
      assert.ok(error instanceof OpenAI.APIError, String(error));
      assert.equal(error.code, 'upstream_failed');
      return true;
    });
    assert.ok(chunks >= 3);
    assert.ok(hearth.running(), 'the gateway lives');
    const answer = await openai.chat.completions.create({ model, messages: ask('list files'), max_tokens: 8 });
    assert.ok(answer.usage.completion_tokens > 0);
    assert.notDeepEqual(hearth.workers(), [worker]);
  }));

test('every one of 16 clients is told when the worker is killed', () =>
  withHearth({}, async (hearth) => {
    const openai = hearth.client();
    const [worker] = hearth.workers();
    let started = 0;
    const outcomes = Promise.all(
      Array.from({ length: 16 }, async () => {
        try {
          let first = true;
          for await (const chunk of await openai.chat.completions.create({ ...endless, max_tokens: 100 })) {
            if (chunk && first) started++;
            first = false;
          }
          return 'finished';
        } catch (error) {
          return error instanceof OpenAI.APIError ? 'told' : `${error}`;
        }
      }),
    );
    await until(() => started > 0, 'the first stream');
    process.kill(worker, 'SIGKILL');
    for (const outcome of await outcomes) assert.ok(outcome === 'told' || outcome === 'finished', outcome);
    assert.ok((await outcomes).includes('told'));
    const chunks = await collect(await openai.chat.completions.create({ ...endless, max_tokens: 5 }));
    assert.ok(chunks.length > 0);
  }));

test('SIGTERM lets a running answer finish and ends with success', async () => {
  const hearth = await startHearth();
  try {
    const stream = await hearth.client().chat.completions.create({ ...endless, max_tokens: 300, stream_options: { include_usage: true } });
    let stopped;
    let usage;
    for await (const chunk of stream) {
      stopped ??= hearth.stop();
      usage = chunk.usage ?? usage;
    }
    assert.equal(usage.completion_tokens, 300);
    assert.equal(await stopped, 0);
  } finally {
    await hearth.stop();
  }
});
