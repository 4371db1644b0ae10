// The worker on this machine, before the gateways of a local deployment: `repomind-run edge run` starts it.
//
//     node live.mjs HOST:PORT STATE
//
// Each line on standard input is a command, each line on standard output says what came of it. `{"policy": …}` puts a
// policy in force: requests that arrive meanwhile wait, those under way that may be repeated are asked again afterwards,
// the others are given a moment, and a worker that does not come up with it leaves the one before. `{"down": […]}` and `{"purge": […]}` are handed on to the worker. The end of
// standard input is the end of everything here: nothing outlives whoever started this.

import { randomBytes } from "node:crypto";
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { Agent, createServer, request as ask } from "node:http";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { build } from "esbuild";
import { Miniflare } from "miniflare";
import workerd from "workerd";
import { options } from "./build.mjs";
import { configuration } from "./local.mjs";

/** How long requests under way that may not be repeated may take when another policy comes. */
const DRAIN_MS = 1_000;
/** How often a request is asked at most, where the worker that had it is replaced. */
const ATTEMPTS = 3;
/** How long requests wait for a policy to come up. */
const WAIT_MS = 15_000;

process.env.REPOMIND_WORKERD = workerd.default;
const [listen, state] = process.argv.slice(2);
mkdirSync(state, { recursive: true });
const token = secret(join(state, "operator-token"));
const bundled = await build({ ...options, legalComments: "none", write: false });
const script = bundled.outputFiles[0].text;

/** The token of operators of this worker: made once, readable by its owner alone. */
function secret(file) {
  try {
    return readFileSync(file, "utf8").trim();
  } catch {
    const made = randomBytes(24).toString("hex");
    writeFileSync(file, `${made}\n`, { mode: 0o600 });
    chmodSync(file, 0o600);
    return made;
  }
}

let worker;
/** Where the worker in force listens, and its policy. */
let target, policy;
/** Resolved while requests may pass. */
let open = deferred();
/** How many requests are under way that may not be repeated, or whose answer has begun. */
let fragile = 0;
let agent = new Agent({ keepAlive: true, maxSockets: 256 });

function deferred() {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
}

const settings = (policy) => ({
  ...configuration(policy, script, { OPERATOR_TOKEN: token }),
  host: "127.0.0.1",
  port: 0,
  // What is stored outlives a change of policy, as it does at a real edge: it is for the policy to forbid it.
  cachePersist: join(state, "cache"),
  durableObjectsPersist: join(state, "objects"),
});

/** Puts a policy in force, or the one before again, and throws. */
async function apply(next) {
  const before = policy;
  open = deferred();
  const began = Date.now();
  while (fragile > 0 && Date.now() - began < DRAIN_MS) await new Promise((done) => setTimeout(done, 5));
  try {
    await bringUp(next);
  } catch (error) {
    if (before !== undefined) await bringUp(before);
    throw error;
  } finally {
    if (target !== undefined) open.resolve();
  }
}

async function bringUp(next) {
  if (worker === undefined) worker = new Miniflare(settings(next));
  else await worker.setOptions(settings(next));
  const url = await worker.ready;
  const { revision } = await (await operate(url, "revision")).json();
  if (revision !== next.revision) throw new Error(`the worker came up with ${revision}`);
  [target, policy] = [url, next];
  agent.destroy();
  agent = new Agent({ keepAlive: true, maxSockets: 256 });
}

async function operate(url, what, command) {
  const answer = await fetch(new URL(`/.repomind/${what}`, url), {
    method: command === undefined ? "GET" : "POST",
    headers: { authorization: `Bearer ${token}` },
    body: command === undefined ? undefined : JSON.stringify(command),
    signal: AbortSignal.timeout(5_000),
  });
  if (!answer.ok) throw new Error(`${what}: the worker answered ${answer.status} ${(await answer.text()).slice(0, 200)}`);
  return answer;
}

const unavailable = (response, why) => {
  if (response.headersSent) return response.destroy();
  response.writeHead(503, { "content-type": "application/problem+json", "retry-after": "1" });
  return response.end(JSON.stringify({ type: "about:blank", title: why, status: 503 }));
};

/** Whether a request may be asked again: it changes nothing, and nothing of it was used up. */
const repeatable = ({ method, headers }) => (method === "GET" || method === "HEAD") &&
  headers["transfer-encoding"] === undefined && Number(headers["content-length"] ?? 0) === 0;

/** Hands a request on as the platform would: what only the platform may say is said here. */
const server = createServer((request, response) => {
  serve(request, response).catch((error) => unavailable(response, `The worker cannot be asked: ${error.code ?? error.message}`));
});

async function serve(request, response) {
  if (!request.url.startsWith("/")) {
    // `*`, and whole URLs, which only proxies are asked for.
    return response.writeHead(400, { "content-type": "application/problem+json" }).end(JSON.stringify({ type: "about:blank", title: "Bad Request", status: 400 }));
  }
  const headers = { ...request.headers };
  for (const name of Object.keys(headers)) if (/^(cf-|mf-)/.test(name)) delete headers[name];
  // Whoever is on this machine is believed about the country that it asks from.
  const stated = String(headers["repomind-country"] ?? "");
  delete headers["repomind-country"];
  // Who says nothing of codings may be given any; the platform gives plain bytes.
  headers["accept-encoding"] ??= "identity";
  const cf = { clientAcceptEncoding: headers["accept-encoding"] };
  headers["mf-cf-blob"] = JSON.stringify(/^[A-Z]{2}$/.test(stated) ? { ...cf, country: stated } : cf);
  headers["cf-connecting-ip"] = request.socket.remoteAddress?.replace(/^::ffff:/, "") ?? "";
  let failed;
  for (let attempt = 1; attempt <= ATTEMPTS; attempt += 1) {
    const late = setTimeout(() => unavailable(response, "No policy is in force yet"), WAIT_MS);
    await open.promise;
    clearTimeout(late);
    if (response.headersSent || response.destroyed) return;
    failed = await handOn(request, response, headers);
    if (failed === undefined || !repeatable(request) || response.headersSent || response.destroyed) break;
  }
  if (failed !== undefined) unavailable(response, `The worker did not answer: ${failed.code ?? failed.message}`);
}

/** Asks the worker in force. Resolved with an error where it did not answer, and when the answer is over or cut off. */
function handOn(request, response, headers) {
  const { promise, resolve } = deferred();
  let counted = false;
  const countIn = () => { if (!counted) [counted, fragile] = [true, fragile + 1]; };
  if (!repeatable(request)) countIn();
  const { hostname, port } = target;
  const onward = ask({ agent, hostname, port, method: request.method, path: request.url, headers }, (answer) => {
    countIn();
    response.writeHead(answer.statusCode, answer.headers);
    answer.on("error", () => response.destroy()).pipe(response);
  });
  const cut = () => { onward.destroy(); resolve(); };
  response.once("close", cut);
  onward.on("error", (error) => { response.off("close", cut); if (response.headersSent) response.destroy(); resolve(error); });
  if (repeatable(request)) onward.end();
  else request.pipe(onward);
  return promise.finally(() => { if (counted) fragile -= 1; });
}

const say = (said) => process.stdout.write(`${JSON.stringify(said)}\n`);

async function end() {
  server.close();
  server.closeAllConnections();
  await Promise.race([worker?.dispose(), new Promise((done) => setTimeout(done, 2_000))]);
  process.exit(0);
}

process.on("SIGTERM", end);
process.on("SIGINT", end);
const [host, port] = [listen.slice(0, listen.lastIndexOf(":")), Number(listen.slice(listen.lastIndexOf(":") + 1))];
server.on("error", (error) => { say({ failed: `cannot listen on ${listen}: ${error.code}` }); process.exit(1); });
server.listen(port, host.replace(/^\[|\]$/g, ""), () => say({ listens: listen }));

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  try {
    if (command.policy) await apply(command.policy);
    if (command.down) await operate(target, "down", { regions: command.down });
    if (command.purge?.length) await operate(target, "purge", { tags: command.purge });
    say({ done: command.id });
  } catch (error) {
    say({ done: command.id, failed: String(error?.message ?? error).slice(0, 2_000) });
  }
}
await end();
