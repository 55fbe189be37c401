// Measures other durable workflow engines as bench/src/flow.rs measures ours, and prints the rows as one JSON list.
//
//     node bench/peers/run.mjs [FOLDER]
//
// FOLDER keeps the packages from one time to the next; without it they are installed for this time alone. What cannot be
// installed or started is said on standard error, in a line each, and leaves its rows out: that is no failure.

import { execFile, spawn as spawnProcess } from "node:child_process";
import * as fs from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const HERE = dirname(fileURLToPath(import.meta.url));
const PEERS = ["restate", "dbos"];
const { dependencies: VERSIONS } = JSON.parse(fs.readFileSync(join(HERE, "package.json"), "utf8"));

// As in flow.rs.
const SEQUENTIAL = 400;
const CALLERS = 32;
const ROUND_MS = 4_000;

// Runs before the first that counts: JavaScript is compiled while it runs.
const WARM = 32;
// A slow peer does fewer runs one after another.
const SEQUENTIAL_MS = 20_000;
const INSTALL_MS = 180_000;
const READY_MS = 30_000;
const STOP_MS = 10_000;
// One peer, from its start to its last row.
const PEER_MS = 90_000;

// Every process that was started and has not ended.
const alive = new Set();
const folder = fs.mkdtempSync(join(tmpdir(), "peers-"));
// An engine that runs as another user has to reach its own folder in there.
fs.chmodSync(folder, 0o711);

// No process and no folder outlives this one, however it ends.
process.on("exit", () => {
  for (const child of alive) child.kill("SIGKILL");
  fs.rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
});
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => process.exit(1));
// What goes wrong behind a peer's back, when its engine is gone, is no reason to lose the rows there are.
for (const event of ["uncaughtException", "unhandledRejection"]) process.on(event, (error) => say(firstLine(error)));

// What the peers' packages will have to change one day is not for those who measure.
process.noDeprecation = true;

// Nothing of the caller's environment changes what is measured: no proxy, no settings of the engines.
const env = { PATH: process.env.PATH, HOME: folder, LC_ALL: "C" };

const say = (line) => process.stderr.write(`peers: ${line}\n`);
// What a program said before it failed tells more than that it failed.
const firstLine = (error) =>
  (String(error?.stderr ?? "").trim() || String(error?.message ?? error)).trim().split("\n", 1)[0];

async function within(ms, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took more than ${ms / 1000} s`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

// The packages of the lock, in `target`; what is there already is kept.
async function install(target) {
  const lock = fs.readFileSync(join(HERE, "package-lock.json"), "utf8");
  const done = join(target, "installed");
  if (fs.existsSync(done) && fs.readFileSync(done, "utf8") === lock) return;
  fs.rmSync(done, { force: true });
  fs.mkdirSync(target, { recursive: true });
  for (const name of ["package.json", "package-lock.json", ".npmrc"]) {
    fs.copyFileSync(join(HERE, name), join(target, name));
  }
  const args = ["ci", "--loglevel=error", "--fetch-retries=1"];
  await promisify(execFile)("npm", args, { cwd: target, timeout: INSTALL_MS });
  fs.writeFileSync(done, lock);
}

// A port that was free a moment ago.
function freePort() {
  return new Promise((found, reject) => {
    const server = createServer().on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => found(port));
    });
  });
}

// Starts a process whose output is kept; `endsBy` is the signal that ends it in order.
function spawn(cwd, name, program, args, more, { endsBy = "SIGTERM", ...options } = {}) {
  const child = spawnProcess(program, args.map(String), {
    ...options,
    cwd,
    env: { ...env, ...more },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const running = { name, said: "", ended: null };
  const keep = (part) => (running.said = (running.said + part).slice(-64_000));
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", keep);
  running.end = new Promise((ended) => {
    const over = (how) => {
      alive.delete(child);
      running.ended ??= how;
      ended();
    };
    child.on("error", (error) => over(error.message));
    child.on("exit", (code, signal) => over(`ended with ${code ?? signal}`));
  });
  running.stop = async () => {
    child.kill(endsBy);
    await within(STOP_MS, `the end of ${name}`, running.end).catch(() => child.kill("SIGKILL"));
    await running.end;
  };
  alive.add(child);
  return running;
}

// Waits for a process to be ready: for a line that it writes, or for a question that it answers.
async function until(running, ready) {
  const deadline = Date.now() + READY_MS;
  let last = "";
  while (Date.now() < deadline && !running.ended) {
    try {
      const found = ready instanceof RegExp ? running.said.match(ready) : await ready();
      if (found) return found.groups ?? found;
    } catch (error) {
      last = firstLine(error);
    }
    await pause(25);
  }
  const why = running.ended ?? `not ready within ${READY_MS / 1000} s`;
  const lines = running.said.trim().split("\n");
  const said = lines.find((line) => /^\w*Error: |\b(ERROR|FATAL)\b|panicked/.test(line)) ?? lines.at(-1);
  throw new Error([`${running.name}: ${why}`, last, said].filter(Boolean).join("; "));
}

const percentile = (waits, part) => waits.sort((a, b) => a - b)[Math.round((waits.length - 1) * part)];

// What one durable write costs here, as in commit.rs.
function fsyncP50(at) {
  const file = fs.openSync(join(at, "fsync"), "w");
  const block = Buffer.alloc(4096, 7);
  const waits = Array.from({ length: 200 }, () => {
    const from = performance.now();
    fs.writeSync(file, block);
    fs.fdatasyncSync(file);
    return performance.now() - from;
  });
  fs.closeSync(file);
  return Math.round(percentile(waits, 0.5) * 1000);
}

async function sequential(once) {
  const waits = [];
  const deadline = performance.now() + SEQUENTIAL_MS;
  while (waits.length < SEQUENTIAL && performance.now() < deadline) {
    const from = performance.now();
    await once();
    waits.push(performance.now() - from);
  }
  return waits;
}

async function atOnce(once) {
  let runs = 0;
  const from = performance.now();
  const caller = async () => {
    while (performance.now() - from < ROUND_MS) {
      await once();
      runs += 1;
    }
  };
  await Promise.all(Array.from({ length: CALLERS }, caller));
  return (runs * 1000) / (performance.now() - from);
}

async function measure(peer, installed) {
  const at = join(folder, peer);
  fs.mkdirSync(at);
  const fsync = fsyncP50(at);
  const started = [];
  const box = {
    need: createRequire(join(installed, "package.json")),
    installed: join(installed, "package.json"),
    callers: CALLERS,
    version: (name) => VERSIONS[name],
    folder: at,
    env,
    freePort,
    until,
    spawn: (...rest) => {
      const running = spawn(at, ...rest);
      started.push(running);
      return running;
    },
  };
  let stop = async () => {};
  const rows = async () => {
    const { start } = await import(`./${peer}.mjs`);
    const { note, once, stop: end } = await start(box);
    stop = end;
    for (let run = 0; run < WARM; run += 1) await once();
    const waits = await sequential(once);
    const perSecond = await atOnce(once);
    const fewer = waits.length < SEQUENTIAL ? `, ${waits.length} runs` : "";
    const p99 = round(percentile(waits, 0.99));
    const row = (name, value, unit, bar) => ({
      name: `${name}_${peer}`,
      value: round(value),
      unit,
      baseline: null,
      ratio: null,
      fsync_p50_us: fsync,
      at: Date.now(),
      bar,
    });
    return [
      row("flow_seq", percentile(waits, 0.5), "ms", `beside flow_seq_p50: ${note}; p99 ${p99} ms${fewer}`),
      row("flow_32", perSecond, "runs/s", `beside flow_32: ${note}`),
    ];
  };
  try {
    return await within(PEER_MS, peer, rows());
  } finally {
    await within(STOP_MS, `the end of ${peer}`, stop()).catch((error) => say(firstLine(error)));
    // The last that was started is the first to end.
    for (const running of started.reverse()) await running.stop();
  }
}

const round = (number) => Math.round(number * 100) / 100;

const installed = resolve(process.argv[2] ?? join(folder, "packages"));
const rows = [];
try {
  await install(installed);
  for (const peer of PEERS) {
    try {
      rows.push(...(await measure(peer, installed)));
    } catch (error) {
      say(`${peer} was not measured: ${firstLine(error)}`);
    }
  }
} catch (error) {
  say(`the packages cannot be installed: ${firstLine(error)}`);
}
// What a peer left open does not keep this process alive; the list has to be out before.
process.stdout.write(`${JSON.stringify(rows)}\n`, () => process.exit(0));
