// Processor time of workerd for each cached hit: this worker beside a minimal one that was written by hand to do the same.
//
//     npm run build && node bench.mjs [hits]
//
// Both are asked in turn, in rounds, over HTTP; what is compared is the processor time of their own processes.

import { readFileSync, readdirSync } from "node:fs";
import { request, Agent } from "node:http";
import { Miniflare } from "miniflare";
import { configuration, form, startRegions } from "./test/harness.mjs";

const HITS = Number(process.argv[2] ?? 3000);
const ROUNDS = 11;

const BY_HAND = `
const SECURITY = [["strict-transport-security", "max-age=31536000; includeSubDomains"], ["x-content-type-options", "nosniff"],
  ["x-frame-options", "SAMEORIGIN"], ["referrer-policy", "strict-origin-when-cross-origin"]];
export default {
  async fetch(request, env, ctx) {
    const url = new URL(request.url);
    const query = url.search.slice(1).split("&").filter((part) => !/^(utm_source|gclid)(=|$)/.test(part)).sort().join("&");
    const key = "https://cache.invalid/" + encodeURIComponent(url.hostname + url.pathname + "?" + query);
    const hit = await caches.default.match(key);
    if (hit) {
      const age = Math.floor((Date.now() - Number(hit.headers.get("x-at"))) / 1000);
      if (age < 60) {
        const headers = new Headers(hit.headers);
        headers.delete("x-at");
        headers.set("age", String(age));
        headers.set("cache-status", "mine; hit; ttl=" + (60 - age));
        headers.set("x-request-id", crypto.randomUUID());
        for (const [name, value] of SECURITY) if (!headers.has(name)) headers.set(name, value);
        return new Response(hit.body, { headers });
      }
    }
    const response = await fetch(HERE + url.pathname + url.search);
    const kept = new Headers(response.headers);
    kept.set("cache-control", "max-age=3600");
    kept.set("x-at", String(Date.now()));
    ctx.waitUntil(caches.default.put(key, new Response(response.clone().body, { headers: kept })));
    return response;
  },
};`;

/** The workerd processes that this one started. */
function workerds() {
  return readdirSync("/proc").filter((pid) => /^\d+$/.test(pid)).filter((pid) => {
    try {
      const [, parent] = /\) \S (\d+)/.exec(readFileSync(`/proc/${pid}/stat`, "utf8"));
      return Number(parent) === process.pid && readFileSync(`/proc/${pid}/comm`, "utf8").startsWith("workerd");
    } catch { return false; }
  });
}

/** Milliseconds of processor time that a process has used (clock ticks are hundredths of a second on Linux). */
function used(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

const agent = new Agent({ keepAlive: true, maxSockets: 4 });
const get = (url) => new Promise((done, failed) => request(new URL("/pages/bench?b=1&a=2", url), { agent }, (answer) => {
  answer.resume().on("end", () => done(answer));
}).on("error", failed).end());

async function start(config) {
  const before = new Set(workerds());
  const worker = new Miniflare({ ...config, host: "127.0.0.1", port: 0 });
  const url = await worker.ready;
  const [pid] = workerds().filter((pid) => !before.has(pid));
  for (let at = 0; at < 300; at += 1) await get(url);
  return { worker, url, pid, rounds: [] };
}

const policy = form();
const regions = await startRegions(Object.keys(policy.origins));
policy.origins = regions.origins;
const ours = await start(configuration(policy, { OBSERVE: "" }, "worker.js"));
const script = BY_HAND.replace("HERE", JSON.stringify(regions.origins["us-east"]));
const theirs = await start({ cf: false, compatibilityDate: "2026-04-01", modules: true, script });
const status = (await get(ours.url)).headers["cache-status"] ?? "";
if (!status.includes("hit")) throw new Error(`not a hit: ${status}`);
for (let round = 0; round < ROUNDS; round += 1) {
  for (const one of [ours, theirs]) {
    const begun = used(one.pid);
    for (let at = 0; at < HITS; at += 4) await Promise.all([1, 2, 3, 4].map(() => get(one.url)));
    one.rounds.push((used(one.pid) - begun) / HITS);
  }
}
const median = (all) => all.toSorted((a, b) => a - b)[Math.floor(all.length / 2)];
const [a, b] = [median(ours.rounds), median(theirs.rounds)];
console.log(`processor time of workerd a cached hit, median of ${ROUNDS} rounds of ${HITS}:`);
console.log(`  this worker  ${a.toFixed(3)} ms  (${ours.rounds.map((ms) => ms.toFixed(3)).join(" ")})`);
console.log(`  by hand      ${b.toFixed(3)} ms  (${theirs.rounds.map((ms) => ms.toFixed(3)).join(" ")})`);
console.log(`  ratio        ${(a / b).toFixed(2)}`);
await ours.worker.dispose();
await theirs.worker.dispose();
agent.destroy();
regions.close();
