// Starts the real programs for a test file and stops them afterwards. HEARTH_BIN names hearth; the gate is found beside it. HEARTH_LLAMA_SERVER names a
// llama-server of the same source, for the tests that supervise one.
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import OpenAI from 'openai';

const binary = process.env.HEARTH_BIN;
export const model = 'hearth-nano-0';
export const modelFile = fileURLToPath(new URL('../../assets/hearth-nano-0-f16.gguf', import.meta.url));

// Undefined when there is none; one that is named has to be there.
export const llamaServer = process.env.HEARTH_LLAMA_SERVER || undefined;
if (llamaServer && !existsSync(llamaServer)) throw new Error(`HEARTH_LLAMA_SERVER names ${llamaServer}, which does not exist`);

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

// A test process that dies must not leave a server behind.
const atExit = [];
process.on('exit', () => atExit.forEach((end) => end()));

function requireBinary() {
  if (!binary) throw new Error('HEARTH_BIN must name the hearth program, e.g. HEARTH_BIN=$PWD/build/dev/src/app/hearth');
}

// `config`: the text of a configuration file. Tool calls are not judged: the demonstration model calls for whatever comes to its mind, and most tests are about how a call
// travels, piece by piece, and what a client does in the midst of one. Those about what becomes of it (safety.test.mjs) give `env: { HEARTH_SAFETY: undefined }`.
export async function startHearth({ args = [], env = {}, config } = {}) {
  requireBinary();
  const state = mkdtempSync(join(tmpdir(), 'hearth-clients-'));
  const file = config === undefined ? 'none' : join(state, 'hearth.toml');
  if (config !== undefined) writeFileSync(file, config);
  const inherited = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('HEARTH_')));
  const child = spawn(binary, ['serve', '--config', file, '--state-folder', state, '--port', '0', ...args], {
    // One thread is as fast for so small a model, and does not wait for others where the machine is busy.
    env: { ...inherited, HEARTH_THREADS: '1', HEARTH_SAFETY: 'off', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let log = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (log += chunk));
  const ended = new Promise((done) => child.on('exit', (code, signal) => done(signal ?? code)));
  let gone;
  ended.then((how) => (gone = how));
  atExit.push(() => {
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
    state,
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
    async models() {
      return (await (await fetch(`${url}/admin/models`)).json()).models;
    },
    // Process ids of its worker processes.
    workers: () => childrenOf(child.pid),
    async stop() {
      child.kill('SIGTERM');
      return ended;
    },
  };
}

// A gate in front of `url` that does to its bytes what `plan` (flags of the program) says.
export async function startGate(url, plan) {
  requireBinary();
  const program = join(dirname(binary), '../../tests/fleet/fault_gate');
  if (!existsSync(program)) throw new Error(`${program} is missing: build it`);
  const child = spawn(program, ['--to', new URL(url).host, ...plan], { stdio: ['ignore', 'pipe', 'inherit'] });
  atExit.push(() => child.kill('SIGKILL'));
  let said = '';
  child.stdout.on('data', (chunk) => (said += chunk));
  const port = await until(() => /listens on (\d+)/.exec(said)?.[1], 'the gate');
  return {
    url: `http://127.0.0.1:${port}`,
    stop: () => new Promise((done) => child.on('exit', done) && child.kill('SIGTERM')),
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
