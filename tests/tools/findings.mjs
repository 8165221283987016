// What layer 1 says of public command lines nobody wrote for it: how many have which effect. Many of them do delete files or ask for root, so a flag is no error; the table
// shows which reasons weigh, and what changes when the code does.
//
//   node tests/tools/findings.mjs --data FOLDER [--assess build/dev/tests/safety/assess_commands] [--lines FOLDER]
//
// Reads, below --data, tldr_pages/pairs.tsv (placeholders filled in with what stands in them) and nl2bash/all.cm, each line once. --lines writes the lines to FOLDER/tldr.txt and FOLDER/nl2bash.txt and
// judges nothing: train_guard takes them as --commands. Exit status 77 where the data or the program is missing.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const options = { assess: join(root, "build/dev/tests/safety/assess_commands"), data: "", lines: "" };
for (let i = 2; i < process.argv.length; i += 2) {
  const name = process.argv[i].replace(/^--/, "");
  if (!(name in options) || i + 1 >= process.argv.length) {
    console.error(`findings: "${process.argv[i]}" is no option, or has no value; there are --data FOLDER, --assess FILE and --lines FOLDER`);
    process.exit(2);
  }
  options[name] = process.argv[i + 1];
}
if (!options.data) {
  console.error("SKIPPED: --data FOLDER, with the tldr-pages and nl2bash data sets, was not given");
  process.exit(77);
}
const files = { tldr: join(options.data, "tldr_pages/pairs.tsv"), nl2bash: join(options.data, "nl2bash/all.cm") };
for (const file of [...Object.values(files), ...(options.lines ? [] : [options.assess])]) {
  if (!existsSync(file)) {
    console.error(`SKIPPED: ${file} is not here`);
    process.exit(77);
  }
}

// {{path/to/file}} is that file; of {{[-r|--recursive]}} the last form stands; {{1..5}} is its first.
const filled = (line) =>
  line.replace(/\{\{(.*?)\}\}/g, (_, inside) => {
    const choice = /^\[(.*)\]$/.exec(inside);
    return choice ? choice[1].split("|").at(-1) : inside.replace(/^(\w+)\.\.\w+$/, "$1").split("|")[0];
  });
const rows = (file) => readFileSync(file, "utf8").split("\n").filter((line) => line !== "");
const sets = {
  tldr: [...new Set(rows(files.tldr).slice(1).map((row) => filled(row.split("\t")[3] ?? "")))].filter((line) => line !== ""),
  nl2bash: [...new Set(rows(files.nl2bash))],
};
if (options.lines) {
  mkdirSync(options.lines, { recursive: true });
  for (const [name, lines] of Object.entries(sets)) writeFileSync(join(options.lines, `${name}.txt`), lines.join("\n") + "\n");
  process.exit(0);
}

const counts = {};
for (const [name, lines] of Object.entries(sets)) {
  const run = spawnSync(options.assess, ["--summary"], { input: lines.join("\n") + "\n", encoding: "utf8", maxBuffer: 1 << 26 });
  if (run.status !== 0) {
    console.error(`findings: ${options.assess} ended with ${run.status ?? run.signal}: ${run.stderr}`);
    process.exit(1);
  }
  for (const [, count, kind, effect] of run.stdout.matchAll(/^ *(\d+)\t(flagged|ordinary)\t(\S+)$/gm)) {
    const bare = effect.replace("?", "");
    const key = kind === "ordinary" ? "passes" : bare === "problem" ? "cannot be read as shell" : bare;
    counts[key] ??= { tldr: 0, nl2bash: 0 };
    counts[key][name] += Number(count);
  }
}
console.log("| most serious effect | tldr | nl2bash |\n| --- | --- | --- |");
for (const [effect, of] of Object.entries(counts).sort(([, a], [, b]) => b.tldr + b.nl2bash - a.tldr - a.nl2bash))
  console.log(`| ${effect} | ${of.tldr} | ${of.nl2bash} |`);
console.log(`| lines | ${sets.tldr.length} | ${sets.nl2bash.length} |`);
