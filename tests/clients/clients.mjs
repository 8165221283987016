// One face for all client packages, so that a suite can ask the same of each. Every client takes neutral requests, sends them in its own way, keeps
// the conversation in its own form, and gives neutral answers.
//
//   const conversation = client.ask('list files');
//   const answer = await client.answer({ model, conversation, tools, must, stream, signal, onText });
//   conversation.push(...answer.turn, ...client.result(answer.calls[0], 'a.txt'));
//
// An answer: { text, thought, calls: [{ id, name, input }], why: 'stop' | 'length' | 'tools', input, output, turn }; input and output count tokens.
// `tools`: [{ name, description, schema }]; `must`: the name of the tool that has to be called.
import Anthropic from '@anthropic-ai/sdk';
import { createAnthropic } from '@ai-sdk/anthropic';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { APICallError, generateText, jsonSchema, RetryError, streamText } from 'ai';
import { Ollama } from 'ollama';
import OpenAI from 'openai';

// Warnings of the AI SDK about settings that a model of its makers would not take.
globalThis.AI_SDK_LOG_WARNINGS = false;

export const bash = {
  name: 'bash',
  description: 'Run a shell command',
  schema: { type: 'object', properties: { command: { type: 'string' } }, required: ['command'], additionalProperties: false },
};

const maxTokens = 200;

function openaiClient(url, key, fetch) {
  const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0, fetch });
  return {
    name: 'openai',
    ask: (text) => [{ role: 'user', content: text }],
    async answer({ model, conversation, tools, must, stream, signal, onText, limit = maxTokens }) {
      const body = {
        model,
        messages: conversation,
        temperature: 0,
        max_tokens: limit,
        tools: tools?.map(({ name, description, schema }) => ({ type: 'function', function: { name, description, parameters: schema } })),
        tool_choice: must && { type: 'function', function: { name: must } },
      };
      let final;
      if (stream) {
        const runner = openai.chat.completions.stream({ ...body, stream_options: { include_usage: true } }, { signal });
        let thought = '';
        runner.on('chunk', (chunk) => {
          const delta = chunk.choices[0]?.delta;
          thought += delta?.reasoning_content ?? '';
          const piece = delta?.content ?? delta?.tool_calls?.[0]?.function?.arguments;
          if (piece) onText?.(piece);
        });
        final = await runner.finalChatCompletion();
        // The helper joins only the fields it knows.
        if (thought) final.choices[0].message.reasoning_content = thought;
      } else {
        final = await openai.chat.completions.create(body, { signal });
      }
      const [{ message, finish_reason }] = final.choices;
      return {
        text: message.content ?? '',
        thought: message.reasoning_content ?? '',
        calls: (message.tool_calls ?? []).map((call) => ({ id: call.id, name: call.function.name, input: JSON.parse(call.function.arguments) })),
        why: { stop: 'stop', length: 'length', tool_calls: 'tools' }[finish_reason],
        input: final.usage.prompt_tokens,
        output: final.usage.completion_tokens,
        turn: [message],
      };
    },
    result: (call, text) => [{ role: 'tool', tool_call_id: call.id, content: text }],
    error: (error) => ({ expected: error instanceof OpenAI.APIError, status: error.status, message: error.message }),
    aborted: (error) => error instanceof OpenAI.APIUserAbortError,
  };
}

function responsesClient(url, key, fetch) {
  const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0, fetch });
  return {
    ...openaiClient(url, key, fetch),
    name: 'openai (Responses)',
    async answer({ model, conversation, tools, must, stream, signal, onText, limit = maxTokens }) {
      const body = {
        model,
        input: conversation,
        temperature: 0,
        max_output_tokens: limit,
        tools: tools?.map(({ name, description, schema }) => ({ type: 'function', name, description, parameters: schema, strict: true })),
        tool_choice: must && { type: 'function', name: must },
      };
      let final;
      if (stream) {
        const runner = openai.responses.stream(body, { signal });
        for (const kind of ['output_text', 'function_call_arguments']) runner.on(`response.${kind}.delta`, ({ delta }) => onText?.(delta));
        // Its finalResponse() waits for ever when the connection breaks before the first event.
        for await (const event of runner) if (event.type.endsWith('.failed')) break;
        final = await runner.finalResponse();
      } else {
        final = await openai.responses.create(body, { signal });
      }
      const calls = final.output.filter((item) => item.type === 'function_call');
      return {
        text: final.output_text,
        thought: final.output.filter((item) => item.type === 'reasoning').flatMap((item) => item.content ?? []).map((part) => part.text).join(''),
        calls: calls.map((item) => ({ id: item.call_id, name: item.name, input: JSON.parse(item.arguments) })),
        why: final.status === 'incomplete' ? 'length' : calls.length > 0 ? 'tools' : 'stop',
        input: final.usage.input_tokens,
        output: final.usage.output_tokens,
        turn: final.output,
      };
    },
    result: (call, text) => [{ type: 'function_call_output', call_id: call.id, output: text }],
  };
}

function anthropicClient(url, key, fetch) {
  const anthropic = new Anthropic({ baseURL: url, apiKey: key, maxRetries: 0, fetch });
  return {
    name: 'anthropic',
    ask: (text) => [{ role: 'user', content: text }],
    async answer({ model, conversation, tools, must, stream, signal, onText, limit = maxTokens }) {
      const body = {
        model,
        messages: conversation,
        temperature: 0,
        max_tokens: limit,
        tools: tools?.map(({ name, description, schema }) => ({ name, description, input_schema: schema })),
        tool_choice: must && { type: 'tool', name: must },
      };
      let final;
      if (stream) {
        const runner = anthropic.messages.stream(body, { signal });
        runner.on('text', (piece) => onText?.(piece));
        runner.on('inputJson', (piece) => onText?.(piece));
        final = await runner.finalMessage();
      } else {
        final = await anthropic.messages.create(body, { signal });
      }
      return {
        text: final.content.filter((block) => block.type === 'text').map((block) => block.text).join(''),
        thought: final.content.filter((block) => block.type === 'thinking').map((block) => block.thinking).join(''),
        calls: final.content.filter((block) => block.type === 'tool_use').map(({ id, name, input }) => ({ id, name, input })),
        why: { end_turn: 'stop', max_tokens: 'length', tool_use: 'tools' }[final.stop_reason],
        input: final.usage.input_tokens + final.usage.cache_read_input_tokens,
        output: final.usage.output_tokens,
        turn: [{ role: 'assistant', content: final.content }],
      };
    },
    result: (call, text) => [{ role: 'user', content: [{ type: 'tool_result', tool_use_id: call.id, content: text }] }],
    error: (error) => ({ expected: error instanceof Anthropic.APIError, status: error.status, message: error.message }),
    aborted: (error) => error instanceof Anthropic.APIUserAbortError,
  };
}

function ollamaClient(url, key, fetch) {
  const headers = { Authorization: `Bearer ${key}` };
  return {
    name: 'ollama',
    ask: (text) => [{ role: 'user', content: text }],
    async answer({ model, conversation, tools, must, stream, signal, onText, limit = maxTokens }) {
      // The package has no signal of its own, but takes a fetch.
      const ollama = new Ollama({ host: url, headers, fetch: (to, init) => fetch(to, { ...init, signal: signal ?? init?.signal }) });
      const body = {
        model,
        messages: conversation,
        options: { temperature: 0, num_predict: limit },
        // Nobody can be forced to call a tool in this API: the same constraint as a format.
        format: must && tools.find((tool) => tool.name === must).schema,
        tools: must ? undefined : tools?.map(({ name, description, schema }) => ({ type: 'function', function: { name, description, parameters: schema } })),
      };
      let message, last;
      if (stream) {
        message = { role: 'assistant', content: '', thinking: '' };
        for await (const part of await ollama.chat({ ...body, stream: true })) {
          message.content += part.message.content;
          message.thinking += part.message.thinking ?? '';
          if (part.message.tool_calls) (message.tool_calls ??= []).push(...part.message.tool_calls);
          if (part.message.content) onText?.(part.message.content);
          last = part;
        }
      } else {
        last = await ollama.chat(body);
        message = last.message;
      }
      const calls = (message.tool_calls ?? []).map((call) => ({ id: call.id, name: call.function.name, input: call.function.arguments }));
      return {
        text: message.content,
        thought: message.thinking ?? '',
        calls,
        why: last.done_reason === 'length' ? 'length' : calls.length > 0 ? 'tools' : 'stop',
        input: last.prompt_eval_count,
        output: last.eval_count,
        turn: [message],
      };
    },
    result: (call, text) => [{ role: 'tool', tool_name: call.name, content: text }],
    // An error inside a stream is a plain Error with the server's words.
    error: (error) => ({ expected: error instanceof Error && error.message.length > 0, status: error.status_code, message: error.message }),
    aborted: (error) => error.name === 'AbortError',
  };
}

function vercelClient(name, provider) {
  return {
    name,
    ask: (text) => [{ role: 'user', content: text }],
    async answer({ model, conversation, tools, must, stream, signal, onText, limit = maxTokens }) {
      const call = {
        model: provider(model),
        messages: conversation,
        temperature: 0,
        maxOutputTokens: limit,
        maxRetries: 0,
        abortSignal: signal,
        tools: tools && Object.fromEntries(tools.map((tool) => [tool.name, { description: tool.description, inputSchema: jsonSchema(tool.schema) }])),
        toolChoice: must && { type: 'tool', toolName: must },
      };
      let text, thought, calls, why, usage, turn;
      if (stream) {
        const result = streamText({ ...call, onError: () => {} });
        for await (const part of result.fullStream) {
          if (part.type === 'error') throw part.error;
          if (part.type === 'abort') throw new DOMException('aborted', 'AbortError');
          if (part.type === 'text-delta') onText?.(part.text);
          if (part.type === 'tool-input-delta') onText?.(part.delta);
        }
        [text, thought, calls, why, usage, turn] = await Promise.all([
          result.text, result.reasoningText, result.toolCalls, result.finishReason, result.usage, result.response.then((response) => response.messages),
        ]);
      } else {
        const result = await generateText(call);
        ({ text, reasoningText: thought, toolCalls: calls, finishReason: why, usage } = result);
        turn = result.response.messages;
      }
      return {
        text,
        thought: thought ?? '',
        calls: calls.map((one) => ({ id: one.toolCallId, name: one.toolName, input: one.input })),
        why: { stop: 'stop', length: 'length', 'tool-calls': 'tools' }[why],
        input: usage.inputTokens,
        output: usage.outputTokens,
        turn,
      };
    },
    result: (call, text) => [
      { role: 'tool', content: [{ type: 'tool-result', toolCallId: call.id, toolName: call.name, output: { type: 'text', value: text } }] },
    ],
    // What breaks inside a stream comes as the document that the server sent, or as an error of the connection.
    error(error) {
      const cause = RetryError.isInstance(error) ? error.lastError : error;
      const message = cause?.message ?? cause?.error?.message ?? String(cause);
      return { expected: message.length > 0, status: APICallError.isInstance(cause) ? cause.statusCode : undefined, message };
    },
    aborted: (error) => error.name === 'AbortError',
  };
}

export const clientsOf = (url, { key = 'none', fetch = globalThis.fetch } = {}) => [
  openaiClient(url, key, fetch),
  responsesClient(url, key, fetch),
  anthropicClient(url, key, fetch),
  ollamaClient(url, key, fetch),
  vercelClient('vercel (openai-compatible)', createOpenAICompatible({ name: 'hearth', baseURL: `${url}/v1`, apiKey: key, fetch, includeUsage: true })),
  vercelClient('vercel (anthropic)', createAnthropic({ baseURL: `${url}/v1`, apiKey: key, fetch })),
];
export const clientNames = clientsOf('http://127.0.0.1').map(({ name }) => name);
