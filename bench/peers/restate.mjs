// Restate: a server, a worker in a process of its own as it is deployed, and callers over HTTP.

import { Agent, request } from "node:http";
import { createServer } from "node:http2";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { check, threeSteps } from "./three-steps.mjs";

const HERE = fileURLToPath(import.meta.url);
const SERVICE = "flows";

// What a call may take. A worker that the server cannot talk to is not reported to the caller: the server tries again.
const CALL_MS = 10_000;

export async function start({ need, installed, version, callers, spawn, freePort, until }) {
  const binary = need.resolve(
    `@restatedev/restate-server-${process.platform}-${process.arch}/bin/restate-server`,
  );
  const [admin, ingress, fabric] = [await freePort(), await freePort(), await freePort()];
  const server = spawn("restate-server", binary, [], {
    RESTATE_ADMIN__BIND_PORT: admin,
    RESTATE_BIND_IP: "127.0.0.1",
    RESTATE_BIND_PORT: fabric,
    RESTATE_DISABLE_TELEMETRY: "true",
    RESTATE_INGRESS__BIND_PORT: ingress,
    RESTATE_LISTEN_MODE: "tcp",
  });
  const worker = spawn("worker", process.execPath, [HERE, installed], { RESTATE_LOGGING: "WARN" });
  const { found: port } = await until(worker, /^port (?<found>\d+)$/m);
  await until(server, async () => (await fetch(`http://127.0.0.1:${admin}/health`)).ok);
  await until(server, async () => (await fetch(`http://127.0.0.1:${ingress}/restate/health`)).ok);
  const registered = await fetch(`http://127.0.0.1:${admin}/deployments`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ uri: `http://127.0.0.1:${port}` }),
    signal: AbortSignal.timeout(CALL_MS),
  });
  if (!registered.ok) throw new Error(`the worker was refused: ${await registered.text()}`);

  const agent = new Agent({ keepAlive: true, maxSockets: callers });
  const once = async () => check(JSON.parse(await post(agent, ingress, JSON.stringify({ amount: 3 }))));
  await until(server, async () => (await once(), true));
  const note = `Restate ${version("@restatedev/restate-server")}, Node, HTTP ingress`;
  return { note, once, stop: async () => agent.destroy() };
}

// Node's plain client: it costs the callers less than `fetch`, and they share the cores with what is measured.
function post(agent, port, body) {
  return new Promise((resolve, reject) => {
    const call = request(
      {
        agent,
        host: "127.0.0.1",
        port,
        path: `/${SERVICE}/run`,
        method: "POST",
        timeout: CALL_MS,
        headers: { "content-type": "application/json", "content-length": Buffer.byteLength(body) },
      },
      (answer) => {
        let text = "";
        answer.setEncoding("utf8");
        answer.on("data", (part) => (text += part));
        answer.on("error", reject);
        answer.on("end", () =>
          answer.statusCode === 200 ? resolve(text) : reject(new Error(`${answer.statusCode}: ${text}`)),
        );
      },
    );
    call.on("timeout", () => call.destroy(new Error(`no answer within ${CALL_MS} ms`)));
    call.on("error", reject);
    call.end(body);
  });
}

// The worker: `node restate.mjs FOLDER`, where the packages are in FOLDER.
if (process.argv[1] === HERE) {
  // The SDK asks for Node 22. On an older one every call would hang without a word, for want of this function alone.
  Promise.withResolvers ??= () => {
    const parts = {};
    parts.promise = new Promise((resolve, reject) => Object.assign(parts, { resolve, reject }));
    return parts;
  };
  const sdk = createRequire(process.argv[2])("@restatedev/restate-sdk");
  const run = (ctx, { amount }) => threeSteps((name, does) => ctx.run(name, does), amount, ctx.request().id);
  const service = sdk.service({ name: SERVICE, handlers: { run } });
  const server = createServer(sdk.endpoint().bind(service).http2Handler());
  server.listen(0, "127.0.0.1", () => console.log(`port ${server.address().port}`));
}
