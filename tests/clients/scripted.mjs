// An OpenAI-compatible engine that knows no tools and writes its calls as text, the way Hermes models do: what it is sent must be text, and what it
// says is cut into pieces of a few characters. What it does beyond that, the last message asks for: "think" first, "wait" until it is told to go on,
// talk "for ever", "run: COMMAND" instead of its usual command.
import { createServer } from 'node:http';

export const scripted = { text: 'ls -l -S --human-readable', command: 'ls -S "my files" "<here>"', after: (result) => `There are ${result.split('\n').length} files.`, thought: 'Hm, let me see.' };

export async function startScripted() {
  let running = 0;
  let goOn = () => {};
  const asked = [];
  const server = createServer(async (request, response) => {
    const refuse = (status, message) => {
      response.writeHead(status, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ error: { message, type: 'invalid_request_error' } }));
    };
    if (request.url !== '/v1/chat/completions') return refuse(404, `nothing at ${request.url}`);
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = JSON.parse(Buffer.concat(chunks).toString());
    asked.push(body);
    if (body.tools?.length > 0 || body.messages.some(({ role, tool_calls: calls }) => role === 'tool' || calls?.length > 0)) {
      return refuse(400, 'this engine knows no tools');
    }
    const last = body.messages.at(-1).content;
    const offered = body.messages.some(({ role, content }) => role === 'system' && content.includes('"bash"'));
    const all = body.messages.map(({ content }) => content).join('');
    const tokens = Math.ceil(all.length / 4);
    if (tokens > 2048) return refuse(400, `the context holds 2048 tokens, but the prompt has ${tokens}`);

    const result = /<tool_response>\n(.*?)\n<\/tool_response>/s.exec(last)?.[1];
    const command = /run: (.*)/.exec(last)?.[1] ?? scripted.command;
    const call = `Let me look.\n<tool_call>\n${JSON.stringify({ name: 'bash', arguments: { command } })}\n</tool_call>`;
    const text = result !== undefined ? scripted.after(result) : offered ? call : scripted.text;
    const chunk = (more) => response.write(`data: ${JSON.stringify({ id: 'x', object: 'chat.completion.chunk', created: 1, model: body.model, ...more })}\n\n`);
    const say = (content, key = 'content') => chunk({ choices: [{ index: 0, delta: { [key]: content }, finish_reason: null }] });
    running++;
    let left = false;
    response.on('close', () => {
      left = true;
      running--;
    });
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    chunk({ choices: [{ index: 0, delta: { role: 'assistant', content: '' }, finish_reason: null }] });
    if (last.includes('for ever')) {
      while (!left) {
        say('and on ');
        await new Promise((wake) => setTimeout(wake, 2));
      }
      return undefined;
    }
    if (last.includes('wait')) await new Promise((told) => (goOn = told));
    if (last.includes('think')) for (const piece of scripted.thought.match(/.{1,3}/gs)) say(piece, 'reasoning_content');
    let pieces = text.match(/.{1,3}/gs);
    const whole = pieces.length <= body.max_tokens;
    pieces = pieces.slice(0, body.max_tokens);
    for (const piece of pieces) say(piece);
    chunk({ choices: [{ index: 0, delta: {}, finish_reason: whole ? 'stop' : 'length' }] });
    chunk({ choices: [], usage: { prompt_tokens: tokens, completion_tokens: pieces.length, total_tokens: tokens + pieces.length } });
    response.end('data: [DONE]\n\n');
    return undefined;
  });
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
  server.unref();  // a test file that fails at its start ends all the same
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    running: () => running,
    asked,
    goOn: () => goOn(),
    stop: () => {
      server.closeAllConnections();
      return new Promise((done) => server.close(done));
    },
  };
}
