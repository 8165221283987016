// Starts the real program for a test file and stops it afterwards. HEARTH_BIN names the program.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import OpenAI from 'openai';

const binary = process.env.HEARTH_BIN;

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
  const state = mkdtempSync(join(tmpdir(), 'hearth-clients-'));
  const inherited = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('HEARTH_')));
  const child = spawn(binary, ['serve', '--config', 'none', '--state-folder', state, '--port', '0', ...args], {
    env: { ...inherited, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let log = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (log += chunk));
  const ended = new Promise((done) => child.on('exit', (code, signal) => done(signal ?? code)));
  let gone;
  ended.then((how) => (gone = how));
  // A test process that dies must not leave a server behind.
  process.on('exit', () => {
    child.kill('SIGKILL');
    rmSync(state, { recursive: true, force: true });
  });
  let url;
  try {
    await until(async () => {
      if (gone !== undefined) throw new Error(`hearth ended with ${gone}`);
      url ??= /listens on (http:\/\/\S+)\n/.exec(log)?.[1];
      return url && await fetch(`${url}/health`).then((answer) => answer.ok, () => false);
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
    // The value of a metric, summed over the series that have these labels; 0 when there is none yet.
    async metric(name, labels = {}) {
      const text = await (await fetch(`${url}/metrics`)).text();
      if (!text.includes(`# TYPE ${name} `)) throw new Error(`no metric ${name} in\n${text}`);
      return text
        .split('\n')
        .filter((line) => line.startsWith(name) && ' {'.includes(line[name.length]))
        .filter((line) => Object.entries(labels).every(([label, value]) => line.includes(`${label}="${value}"`)))
        .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
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
