// Starts the real program for a test file and stops it afterwards. HEARTH_BIN names the program.
import { spawn } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { createServer } from 'node:net';
import OpenAI from 'openai';

const binary = process.env.HEARTH_BIN;

async function freePort() {
  const server = createServer();
  await new Promise((done, failed) => server.listen(0, '127.0.0.1', done).on('error', failed));
  const { port } = server.address();
  await new Promise((done) => server.close(done));
  return port;
}

// Waits for a condition of the server under test; the limit only catches a test that would hang for ever.
export async function until(condition, what, limitMs = 60_000) {
  const end = Date.now() + limitMs;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) throw new Error(`still waiting for ${what} after ${limitMs} ms`);
    await new Promise((wake) => setTimeout(wake, 20));
  }
}

export async function startHearth({ args = [], env = {} } = {}) {
  if (!binary) throw new Error('HEARTH_BIN must name the hearth program, e.g. HEARTH_BIN=$PWD/build/dev/src/app/hearth');
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const inherited = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('HEARTH_')));
  const child = spawn(binary, ['serve', '--host', '127.0.0.1', '--port', String(port), ...args], {
    env: { ...inherited, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let log = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (log += chunk));
  const ended = new Promise((done) => child.on('exit', (code, signal) => done(signal ?? code)));
  let gone;
  ended.then((how) => (gone = how));
  // A test process that dies must not leave a server behind.
  process.on('exit', () => child.kill('SIGKILL'));
  try {
    await until(async () => {
      if (gone !== undefined) throw new Error(`hearth ended with ${gone}`);
      return await fetch(`${url}/health`).then((answer) => answer.ok, () => false);
    }, 'a healthy server');
  } catch (error) {
    child.kill('SIGKILL');
    error.message += `\n${log}`;
    throw error;
  }
  return {
    url,
    pid: child.pid,
    log: () => log,
    running: () => gone === undefined,
    client: (options = {}) => new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0, ...options }),
    // The value of a metric, summed over its labels.
    async metric(name) {
      const text = await (await fetch(`${url}/metrics`)).text();
      const lines = text.split('\n').filter((line) => line.startsWith(name) && ' {'.includes(line[name.length]));
      if (lines.length === 0) throw new Error(`no metric ${name} in\n${text}`);
      return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
    },
    // Process ids of its worker processes.
    workers: () => childrenOf(child.pid),
    async stop() {
      child.kill('SIGTERM');
      return ended;
    },
  };
}

function childrenOf(parent) {
  const children = [];
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      const stat = readFileSync(`/proc/${entry}/stat`, 'utf8');
      const [state, ppid] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      if (Number(ppid) === parent && state !== 'Z') children.push(Number(entry));
    } catch {
      // ended between listing and reading
    }
  }
  return children;
}

export const bashTool = {
  type: 'function',
  function: {
    name: 'bash',
    description: 'Run a shell command',
    parameters: { type: 'object', properties: { command: { type: 'string' } }, required: ['command'], additionalProperties: false },
  },
};

export const ask = (text) => [{ role: 'user', content: text }];

export async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}
