// A worker in miniflare before regions of its own. Nothing leaves this machine.

import { randomUUID } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { Miniflare } from "miniflare";
import { configuration as configured } from "../local.mjs";
import { COVERAGE } from "./counting.mjs";

const DIST = join(import.meta.dirname, "../dist");
const CORPUS = join(import.meta.dirname, "../../../runtime/edge/tests/corpus");

export const OPERATOR = "operator-of-the-tests";
/** When tests take place, unless they say otherwise: 2025-11-24T16:00:00Z. */
export const NOW = 1_764_000_000_000;

export const corpus = (file) => JSON.parse(readFileSync(join(CORPUS, file), "utf8"));
/** A fresh copy of the corpus' form. */
export const form = () => corpus("cloudflare-workers/policy.json");

/** Regions that answer as they are told by `x-origin`, or by `script`. */
export async function startRegions(names) {
  const regions = { origins: {}, seen: [], script: {}, delay: 0, servers: [] };
  for (const name of names) {
    const server = createServer(async (request, response) => {
      const body = await new Promise((done) => {
        const chunks = [];
        request.on("data", (chunk) => chunks.push(chunk)).on("end", () => done(Buffer.concat(chunks).toString()));
      });
      regions.seen.push({ region: name, method: request.method, target: request.url, headers: request.headers, body });
      const script = { status: 200, headers: [], down: [], unwell: [], ...regions.script, ...JSON.parse(request.headers["x-origin"] ?? "{}") };
      if (regions.delay > 0) await new Promise((done) => setTimeout(done, regions.delay));
      if (script.down.includes(name)) return request.socket.destroy();
      if (script.unwell.includes(name)) return response.writeHead(503).end("unwell\n");
      const all = script.headers;
      const tag = all.find(([key]) => key === "etag")?.[1];
      response.setHeader("x-region", name);
      for (const [key, value] of all) response.appendHeader(key, value);
      if (tag && request.headers["if-none-match"] === tag) return response.writeHead(304).end();
      response.writeHead(script.status || 200).end(script.base64 ? Buffer.from(script.base64, "base64") : `from ${name}\n`);
    });
    await new Promise((done) => server.listen(0, "127.0.0.1", done));
    regions.origins[name] = `http://127.0.0.1:${server.address().port}`;
    regions.servers.push(server);
  }
  regions.close = () => regions.servers.forEach((server) => { server.closeAllConnections(); server.close(); });
  return regions;
}

/** Keys of an issuer, behind a URL. */
export async function startKeys(keys) {
  const served = { keys, fetched: 0 };
  const server = createServer((_, response) => {
    served.fetched += 1;
    response.setHeader("content-type", "application/json").end(JSON.stringify({ keys: served.keys }));
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  served.url = `http://127.0.0.1:${server.address().port}/jwks.json`;
  served.close = () => { server.closeAllConnections(); server.close(); };
  return served;
}

/** How a worker with this policy is run; `worker` is the bundle. */
export function configuration(policy, bindings = {}, worker = existsSync(join(DIST, "counted.js")) ? "counted.js" : "worker.js") {
  const script = readFileSync(join(DIST, worker), "utf8");
  return configured(policy, script, { OBSERVE: "1", OPERATOR_TOKEN: OPERATOR, JWKS_COOLDOWN_MS: "0", ...bindings });
}

/** Starts a worker with this policy before regions of its own, and gives what a test needs. */
export async function startEdge({ policy = form(), bindings = {}, regions } = {}) {
  const own = regions === undefined;
  regions ??= await startRegions(Object.keys(policy.origins));
  policy.origins = { ...regions.origins };
  const worker = new Miniflare(configuration(policy, bindings));
  try {
    await worker.ready;
  } catch (error) {
    await worker.dispose().catch(() => undefined);
    if (own) regions.close();
    throw error;
  }
  const ask = async (target, { method = "GET", headers = {}, country, now = NOW, host = "www.example.org", client = "192.0.2.1", script, body } = {}) => {
    const all = new Headers(headers);
    all.set("cf-connecting-ip", client);
    if (now !== null) all.set("repomind-test-now", String(now));
    if (script) all.set("x-origin", JSON.stringify(script));
    const response = await worker.dispatchFetch(`https://${host}${target}`, {
      method, headers: all, body, redirect: "manual", cf: { country: country ?? "XX" },
    });
    return {
      status: response.status, headers: response.headers, body: await response.text(),
      came: response.headers.get("repomind-test-came"), header: (name) => response.headers.get(`repomind-test-${name}`),
    };
  };
  const operate = (path, command, method = "POST", token = OPERATOR) => worker.dispatchFetch(`https://www.example.org/.repomind/${path}`, {
    method, headers: { authorization: `Bearer ${token}` }, ...(command === undefined ? {} : { body: typeof command === "string" ? command : JSON.stringify(command) }),
  });
  const close = async () => {
    const counted = await worker.dispatchFetch("https://www.example.org/__coverage__").then((response) => response.json(), () => ({}));
    if (Object.keys(counted).length > 0 && counted["worker.ts"]) writeFileSync(join(COVERAGE, `${randomUUID()}.json`), JSON.stringify(counted));
    await worker.dispose();
    if (own) regions.close();
  };
  return { ask, operate, close, regions, policy, worker };
}
