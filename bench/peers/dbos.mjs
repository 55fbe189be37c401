// DBOS: a library in the caller's process, on a Postgres with the settings that it comes with.

import { execFileSync } from "node:child_process";
import { chownSync, existsSync, mkdirSync, readdirSync } from "node:fs";
import { delimiter, join } from "node:path";
import { check, threeSteps } from "./three-steps.mjs";

// Where Debian's package puts its programs, a folder for each version. They are not on the path there.
const DEBIAN = "/usr/lib/postgresql";
const INIT_MS = 60_000;

export async function start({ need, version, folder, spawn, freePort, until, env }) {
  const { DBOS } = need("@dbos-inc/dbos-sdk");
  const programs = postgres();
  // Postgres refuses to be run by root.
  const user = process.getuid() === 0 ? other() : {};
  const data = join(folder, "data");
  mkdirSync(data, { mode: 0o700 });
  if (user.uid !== undefined) [folder, data].forEach((path) => chownSync(path, user.uid, user.gid));
  const init = ["-D", data, "-A", "trust", "-U", "app", "-E", "UTF8", "--locale=C"];
  execFileSync(join(programs, "initdb"), init, { ...user, cwd: folder, env, timeout: INIT_MS, stdio: "pipe" });

  const port = await freePort();
  const settings = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="];
  const options = { ...user, endsBy: "SIGINT" };
  const server = spawn("postgres", join(programs, "postgres"), ["-D", data, "-p", port, ...settings], {}, options);
  await until(server, /database system is ready to accept connections/);

  const quiet = () => {};
  DBOS.setConfig({
    name: "peers",
    systemDatabaseUrl: `postgresql://app@127.0.0.1:${port}/peers`,
    logger: { debug: quiet, info: quiet, warn: quiet, error: (said) => process.stderr.write(`dbos: ${said}\n`) },
  });
  const body = (amount) => threeSteps((name, does) => DBOS.runStep(does, { name }), amount, DBOS.workflowID);
  const run = DBOS.registerWorkflow(body, { name: "three-steps" });
  await DBOS.launch();
  const engine = execFileSync(join(programs, "postgres"), ["--version"], { encoding: "utf8", env });
  const [postgresVersion] = engine.match(/\d+(\.\d+)*/);
  return {
    note: `DBOS ${version("@dbos-inc/dbos-sdk")}, Node, Postgres ${postgresVersion}, in process`,
    once: async () => check(await run(3)),
    stop: () => DBOS.shutdown(),
  };
}

// The folder of Postgres's programs.
function postgres() {
  const versions = existsSync(DEBIAN) ? readdirSync(DEBIAN).sort((a, b) => b - a) : [];
  const folders = [...process.env.PATH.split(delimiter), ...versions.map((name) => join(DEBIAN, name, "bin"))];
  const found = folders.find((folder) => ["initdb", "postgres"].every((name) => existsSync(join(folder, name))));
  if (!found) throw new Error(`no Postgres on the path or in ${DEBIAN}`);
  return found;
}

// The user whom Debian's package makes, or nobody.
function other() {
  for (const name of ["postgres", "nobody"]) {
    try {
      const id = (what) => Number(execFileSync("id", [what, name], { encoding: "utf8", stdio: "pipe" }));
      return { uid: id("-u"), gid: id("-g") };
    } catch {
      // Not on this machine.
    }
  }
  throw new Error("Postgres refuses to be run by root, and there is no user `postgres` or `nobody`");
}
