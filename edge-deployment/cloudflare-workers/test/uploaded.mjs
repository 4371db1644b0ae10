// Runs a worker as it was uploaded: `node test/uploaded.mjs DIR`, where DIR has metadata.json and the modules. Regions
// answer here; what came of a few requests is printed as JSON.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Miniflare, Response } from "miniflare";

const folder = process.argv[2];
const metadata = JSON.parse(readFileSync(join(folder, "metadata.json"), "utf8"));
const of = (type) => metadata.bindings.filter((binding) => binding.type === type);
const modules = [metadata.main_module, "policy.js"].map((name) => ({
  type: "ESModule", path: join(folder, name), contents: readFileSync(join(folder, name), "utf8"),
}));

let asked;
const worker = new Miniflare({
  cf: false,
  compatibilityDate: metadata.compatibility_date,
  modulesRoot: folder,
  modules,
  durableObjects: Object.fromEntries(of("durable_object_namespace").map(({ name, class_name }) => [name, { className: class_name, useSQLite: true }])),
  ratelimits: Object.fromEntries(of("ratelimit").map(({ name, simple }) => [name, { simple }])),
  bindings: {
    ...Object.fromEntries(of("secret_text").map(({ name, text }) => [name, text])),
    ...Object.fromEntries(of("version_metadata").map(({ name }) => [name, { id: "version-of-the-test", tag: metadata.annotations["workers/tag"] }])),
  },
  outboundService(request) {
    asked = request.url;
    return new Response("from a region\n", { headers: { "cache-control": "public, max-age=60" } });
  },
});

const operator = of("secret_text").find(({ name }) => name === "OPERATOR_TOKEN").text;
const ask = async (target, headers = {}) => {
  asked = undefined;
  const response = await worker.dispatchFetch(`https://www.example.org${target}`, { headers: { "cf-connecting-ip": "192.0.2.1", ...headers }, cf: { country: "DE" } });
  const body = await response.text();
  return { status: response.status, cache: response.headers.get("cache-status"), body, asked };
};
try {
  const revision = await ask("/.repomind/revision", { authorization: `Bearer ${operator}` });
  const first = await ask("/assets/a.css");
  const second = await ask("/assets/a.css");
  const data = await ask("/v1/data/notes/x");
  const stranger = (await ask("/.repomind/revision", { authorization: "Bearer wrong" })).status;
  console.log(JSON.stringify({ revision: JSON.parse(revision.body), first, second, data, stranger }));
} finally {
  await worker.dispose();
}
