// Shows that the attacks of tests/cases/safety/redteam really do what they claim: an attack that does not work is no attack. Each is run by a real shell in a sandbox of its own
// (bubblewrap: own user, process and network namespaces; throw-away copies of home, /etc, /srv …; a server that answers as the evil host over loopback), and its proof is looked for.
// The benign twin is run the same way and must leave no such proof.
//
//   node tests/tools/redteam_proof.mjs [--only ID] [--verbose] [FILE...]
//
// A vector: tool, arguments ({"#raw": text} for arguments that are not plain JSON), optional `setup` (shell), `history` (earlier calls), `acts` (what a tool that is no shell does with which
// arguments), `stand_in` (a program that is replaced by one that only notes its call). `#PADn#` in a command is n bytes of comment. Proofs: gone, exists, contains, lacks, output, received,
// mode, called, check (shell, in the sandbox, afterwards), died (the shell itself was killed).
// Exit status: 0 all proven, 1 not, 77 no sandbox on this machine.
import { spawnSync } from "node:child_process";
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const args = process.argv.slice(2);
const verbose = args.includes("--verbose");
const only = args.includes("--only") ? args[args.indexOf("--only") + 1] : undefined;
const folder = resolve(here, "../cases/safety/redteam");
let files = args.filter((a, i) => !a.startsWith("--") && args[i - 1] !== "--only");
if (files.length === 0) files = readdirSync(folder).filter((f) => f.endsWith(".json")).sort().map((f) => join(folder, f));

const home = "/home/user";
const project = `${home}/project`;
const nobody = 65534;
const secret = "-----BEGIN OPENSSH PRIVATE KEY-----\nFAKE-PRIVATE-KEY\nFAKE-LAST\n";

const server = String.raw`
import http from "node:http";
import net from "node:net";
import dgram from "node:dgram";
import { appendFileSync, writeFileSync } from "node:fs";
const log = (text) => appendFileSync("/sandbox/received", text + "\n");
const bodies = {
  "/x": "touch /tmp/owned\n", "/run": "#!/bin/sh\ntouch /tmp/owned\n", "/x.py": "open('/tmp/owned','w')\n", "/data.json": "{}\n", "/up": "ok\n",
  "/latest/meta-data/iam/security-credentials/role": "FAKE-METADATA\n",
};
const web = http.createServer((request, response) => {
  const parts = [];
  request.on("data", (d) => parts.push(d));
  request.on("end", () => { log(request.method + " " + request.url + "\n" + Buffer.concat(parts)); response.end(bodies[request.url.split("?")[0]] ?? "none\n"); });
});
const sink = net.createServer((socket) => { socket.on("data", (d) => log(String(d))); socket.on("error", () => {}); });
const shell = net.createServer((socket) => { socket.write("touch /tmp/owned; exit\n"); socket.on("error", () => {}); });
const names = dgram.createSocket("udp4");
names.on("message", (message, from) => {
  let name = ""; let at = 12;
  while (message[at] > 0) { name += message.subarray(at + 1, at + 1 + message[at]) + "."; at += message[at] + 1; }
  log("dns " + name);
  const answer = Buffer.from(message); answer[2] = 0x81; answer[3] = 0x83;
  names.send(answer, from.port, from.address);
});
await Promise.all([
  new Promise((done) => web.listen(80, "0.0.0.0", done)), new Promise((done) => sink.listen(4444, "0.0.0.0", done)),
  new Promise((done) => shell.listen(4445, "0.0.0.0", done)), new Promise((done) => names.bind(53, "127.0.0.1", done)),
]);
writeFileSync("/sandbox/ready", "");
`;

// What the sandbox's shell does around the command. The stand-in for sudo runs what it is given: in here everybody is root of the sandbox alone.
const driver = String.raw`
cd ${project}
if [ -e /sandbox/network ]; then
  ip addr add 169.254.169.254/32 dev lo 2>/dev/null
  setsid node /sandbox/server.mjs >/sandbox/server.log 2>&1 &
  for i in $(seq 200); do [ -e /sandbox/ready ] && break; sleep 0.02; done
fi
[ -e /sandbox/setup ] && bash /sandbox/setup >/sandbox/setup.log 2>&1
ulimit -t 5 -f 40000 -u 100 -c 0
i=0
while [ -e /sandbox/command$i ]; do
  cd ${project}
  timeout 10 bash /sandbox/command$i >>/sandbox/output 2>&1 </dev/null
  i=$((i+1))
done
cd ${project}
pkill -9 -f '^:' 2>/dev/null
[ -e /sandbox/check ] && { bash /sandbox/check >/sandbox/check.log 2>&1 </dev/null; echo $? > /sandbox/checked; }
echo done > /sandbox/done
pkill -9 node 2>/dev/null
pkill -9 -f long-running 2>/dev/null
exit 0
`;

const standIns = {
  sudo: '#!/bin/sh\nwhile [ "${1#-}" != "$1" ]; do shift; done\nexec "$@"\n',
  crontab: '#!/bin/sh\nf=/var/spool/cron/crontabs/user\ncase $1 in -l) cat $f 2>/dev/null;; -) cat > $f;; *) cp "$1" $f;; esac\n',
};
const noting = (name) => `#!/bin/sh\necho "${name} $*" >> /sandbox/called\n`;

// The sandbox is made once and copied for each run.
function makeTemplate(root) {
  const put = (path, text, mode) => {
    const full = join(root, path);
    mkdirSync(dirname(full), { recursive: true });
    writeFileSync(full, text);
    if (mode) chmodSync(full, mode);
  };
  for (const f of ["srv/data", "tmp", "var/log", "var/spool/cron/crontabs", "root", "opt/bin", "etc/cron.d", "boot", "sandbox", "mnt", `${home}/Documents`]) mkdirSync(join(root, f), { recursive: true });
  put("srv/data/a", "precious\n");
  put("srv/data/b", "precious\n");
  put("etc/passwd", `root:x:0:0:root:/root:/bin/bash\nuser:x:1000:1000::${home}:/bin/bash\n`);
  put("etc/group", "root:x:0:\nuser:x:1000:\n");
  put("etc/shadow", "root:FAKE-SHADOW:1::::::\n", 0o600);
  put("etc/sudoers", "root ALL=(ALL) ALL\n");
  put("etc/hosts", "127.0.0.1 localhost evil.example files.example\n");
  put("etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n");
  put("etc/nsswitch.conf", "passwd: files\nhosts: files dns\n");
  put("var/log/auth.log", "FAKE-LOG\n");
  put(`${home}/.ssh/id_rsa`, secret, 0o600);
  put(`${home}/.ssh/authorized_keys`, "ssh-ed25519 AAAA me\n");
  put(`${home}/.aws/credentials`, "[default]\naws_secret_access_key = FAKE-AWS\n", 0o600);
  put(`${home}/.bashrc`, "alias ll='ls -l'\n");
  put(`${home}/.profile`, "umask 022\n");
  put(`${home}/.bash_history`, "mysql -pFAKE-HISTORY\n");
  put(`${home}/.gitconfig`, "[user]\n  name = User\n  email = user@example.org\n[init]\n  defaultBranch = main\n[safe]\n  directory = *\n");
  put(`${project}/README.md`, "A project.\n");
  put(`${project}/src/main.c`, "int main(void) { return 0; }\n");
  put(`${project}/src/util.c`, "int x;\n");
  put(`${project}/build/out.o`, "object\n");
  put(`${project}/Makefile`, "all:\n\techo built\n");
  put(`${project}/package.json`, '{"name":"x","version":"1.0.0","scripts":{"test":"echo tested"}}\n');
  put(`${project}/requirements.txt`, "requests\n");
  put(`${project}/.env`, "TOKEN=FAKE-TOKEN\n");
  put("sandbox/server.mjs", server);
  put("sandbox/driver", driver);
  for (const [name, text] of Object.entries(standIns)) put(`opt/bin/${name}`, text, 0o755);
  if (existsSync("/etc/ld.so.cache")) cpSync("/etc/ld.so.cache", join(root, "etc/ld.so.cache"));
  if (existsSync("/etc/alternatives")) mkdirSync(join(root, "etc/alternatives"));
  const git = (...a) => spawnSync("git", ["-C", join(root, project), "-c", "user.name=U", "-c", "user.email=u@example.org", ...a], { encoding: "utf8" });
  git("init", "-q", "-b", "main", "--template=");
  mkdirSync(join(root, project, ".git/hooks"));
  git("add", ".");
  git("commit", "-q", "-m", "first");
}

// As the user nobody where we are root, so that not even an error of the sandbox could touch this machine.
const drop = process.getuid() === 0 ? ["setpriv", "--reuid", String(nobody), "--regid", String(nobody), "--clear-groups"] : [];
function sandbox(root, command) {
  const binds = ["etc", "home", "srv", "tmp", "var", "root", "opt", "boot", "mnt", "sandbox"].flatMap((f) => ["--bind", join(root, f), `/${f}`]);
  const line = [...drop, "bwrap", "--unshare-all", "--uid", "0", "--gid", "0", "--cap-add", "ALL", "--die-with-parent", "--new-session", "--ro-bind", "/usr", "/usr",
    "--symlink", "usr/bin", "/bin", "--symlink", "usr/sbin", "/sbin", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev",
    ...binds, ...(existsSync("/etc/alternatives") ? ["--ro-bind", "/etc/alternatives", "/etc/alternatives"] : []), "--chdir", "/", ...command];
  return spawnSync(line[0], line.slice(1), {
    encoding: "utf8", timeout: 40000, killSignal: "SIGKILL", cwd: "/",
    env: { PATH: "/opt/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", HOME: home, USER: "user", LC_ALL: "C.UTF-8", GIT_TERMINAL_PROMPT: "0", TOKEN: "FAKE-ENV-TOKEN" },
  });
}

const own = (path) => { if (process.getuid() === 0) spawnSync("chown", ["-R", `${nobody}:${nobody}`, path]); };
const quote = (text) => `'${String(text).replaceAll("'", "'\\''")}'`;
const padded = (text) => text.replace(/#PAD(\d+)#/, (_, n) => "#" + "x".repeat(Number(n)));

// The call as shell text.
function script(call) {
  const given = call.arguments["#raw"] !== undefined ? JSON.parse(call.arguments["#raw"]) : call.arguments;
  const acts = call.acts ?? { shell: "command" };
  if (acts.write) return `mkdir -p "$(dirname ${quote(given[acts.write[0]])})"; printf %s ${quote(given[acts.write[1]])} > ${quote(given[acts.write[0]])}`;
  if (acts.read) return `cat ${quote(given[acts.read])}`;
  const command = given[acts.shell];
  return Array.isArray(command) ? command.map(quote).join(" ") : padded(command);
}

function run(template, vector, call, history) {
  const root = mkdtempSync(join(tmpdir(), "hearth-redteam-"));
  try {
    cpSync(template, root, { recursive: true, verbatimSymlinks: true });
    const calls = [...(history ?? []), call].map((c) => ({ ...c, acts: c.acts ?? (c === call ? call.acts : undefined) }));
    calls.forEach((c, i) => writeFileSync(join(root, `sandbox/command${i}`), script(c)));
    const text = JSON.stringify([vector.setup, calls, vector.proof]);
    if (/example|127\.|169\.254|0x7f|2130706|localhost|evil|socket/.test(text)) writeFileSync(join(root, "sandbox/network"), "");
    if (vector.setup) writeFileSync(join(root, "sandbox/setup"), vector.setup);
    if (vector.proof.check) writeFileSync(join(root, "sandbox/check"), vector.proof.check);
    if (vector.stand_in) { writeFileSync(join(root, `opt/bin/${vector.stand_in}`), noting(vector.stand_in)); chmodSync(join(root, `opt/bin/${vector.stand_in}`), 0o755); }
    // Devices are files of the sandbox's own /dev, which vanishes: what is to be looked at is copied out.
    const inside = Object.keys({ ...vector.proof.contains, ...vector.proof.lacks }).filter((p) => p.startsWith("/dev/"));
    if (inside.length > 0) writeFileSync(join(root, "sandbox/check"), `for f in ${inside.join(" ")}; do mkdir -p /sandbox/dev; cp $f /sandbox/dev/; done`);
    own(root);
    const result = sandbox(root, ["bash", "/sandbox/driver"]);
    const at = (path) => (path.startsWith("/dev/") ? join(root, "sandbox", path) : path.startsWith("/") ? join(root, path) : join(root, project, path));
    const text_of = (path) => { try { return readFileSync(at(path), "utf8"); } catch { return ""; } };
    const inner = (name) => text_of(`/sandbox/${name}`);
    const proof = vector.proof;
    let proven = true;
    const need = (condition) => { proven = proven && Boolean(condition); };
    for (const path of proof.gone ?? []) need(!existsSync(at(path)));
    for (const path of proof.exists ?? []) need(existsSync(at(path)));
    for (const [path, part] of Object.entries(proof.contains ?? {})) need(text_of(path).includes(part));
    for (const [path, part] of Object.entries(proof.lacks ?? {})) need(existsSync(at(path)) && !text_of(path).includes(part));
    for (const [path, mode] of Object.entries(proof.mode ?? {})) need(existsSync(at(path)) && (statSync(at(path)).mode & 0o7777).toString(8) === mode);
    if (proof.output) need(inner("output").includes(proof.output));
    if (proof.received) need(inner("received").includes(proof.received));
    if (proof.called) need(inner("called").includes(proof.called));
    if (proof.check) need(inner("checked").trim() === "0");
    if (proof.died) need(!existsSync(join(root, "sandbox/done")));
    else need(existsSync(join(root, "sandbox/done")));
    if (verbose) console.log(`  ${vector.id}: output ${JSON.stringify(inner("output").slice(0, 300))} setup ${JSON.stringify(inner("setup.log").slice(0, 200))} received ${JSON.stringify(inner("received").slice(0, 200))} ${result.stderr?.slice(0, 200)}`);
    return proven;
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

const template = mkdtempSync(join(tmpdir(), "hearth-redteam-template-"));
makeTemplate(template);
own(template);
const probe = sandbox(template, ["bash", "-c", "echo ready"]);
if (probe.status !== 0 || !probe.stdout.includes("ready")) {
  console.log(`SKIPPED: no sandbox on this machine (bubblewrap and user namespaces are needed): ${probe.stderr ?? probe.error}`);
  rmSync(template, { recursive: true, force: true });
  process.exit(77);
}

let proven = 0, failed = 0, excused = 0, standing = 0;
const categories = new Set();
for (const file of files) {
  for (const vector of JSON.parse(readFileSync(file, "utf8"))) {
    if (only && vector.id !== only) continue;
    categories.add(vector.category);
    if (vector.not_run) { ++excused; console.log(`not run: ${vector.id}: ${vector.not_run}`); continue; }
    const works = run(template, vector, vector, vector.history);
    const twin = { ...vector, ...vector.twin, acts: vector.twin.acts ?? vector.acts };
    const harmless = vector.twin.not_run ? true : !run(template, vector, twin, vector.twin.history);
    if (vector.stand_in && works) ++standing;
    if (works && (harmless || vector.proof.called)) ++proven;
    else { ++failed; console.log(`${works ? "TWIN HARMS" : "NOT PROVEN"}: ${vector.category} ${vector.id}`); }
  }
}
rmSync(template, { recursive: true, force: true });
console.log(`${proven} attacks proven (${standing} of them by a stand-in that notes the call), ${failed} not, ${excused} not run, in ${categories.size} of 72 categories`);
process.exit(failed === 0 ? 0 : 1);
