// Content codings: one form is stored, and everybody gets one that they take.

import assert from "node:assert/strict";
import { request } from "node:http";
import { after, before, test } from "node:test";
import { brotliCompressSync, brotliDecompressSync, gunzipSync } from "node:zlib";
import { startEdge } from "./harness.mjs";

const TEXT = "body { color: rebeccapurple; }\n".repeat(200);
let edge;
before(async () => { edge = await startEdge(); });
after(() => edge.close());

/** Asks over HTTP itself: `fetch` would decode what it is given. */
async function raw(target, accept) {
  const url = new URL(target, await edge.worker.ready);
  const headers = { host: "www.example.org", ...(accept === undefined ? {} : { "accept-encoding": accept }) };
  return new Promise((done, failed) => request(url, { headers }, (answer) => {
    const chunks = [];
    answer.on("data", (chunk) => chunks.push(chunk)).on("end", () => done({ headers: answer.headers, body: Buffer.concat(chunks) }));
  }).on("error", failed).end());
}

test("what was compressed ahead is stored once and read by everybody", async () => {
  const compressed = brotliCompressSync(TEXT);
  edge.regions.script = {
    headers: [["content-type", "text/css"], ["content-encoding", "br"], ["vary", "accept-encoding"], ["etag", '"abc-br"'], ["cache-control", "public, max-age=60, immutable"]],
    base64: compressed.toString("base64"),
  };
  const seen = edge.regions.seen.length;
  const decoded = { br: brotliDecompressSync, gzip: gunzipSync, undefined: (bytes) => bytes };
  for (const accept of ["br", "br", "gzip", "gzip, deflate, br, zstd", "gzip, br;q=0", "identity"]) {
    const { headers, body } = await raw("/pages/app.css", accept);
    const coding = headers["content-encoding"];
    assert.ok(coding === undefined || accept.replace("br;q=0", "").includes(coding), `${accept} got ${coding}`);
    assert.equal(decoded[coding](body).toString(), TEXT, accept);
  }
  assert.equal(edge.regions.seen.length, seen + 1);
  assert.equal(edge.regions.seen.at(-1).headers["accept-encoding"], "br, gzip");
});

test("a client that has the answer in another coding is told so", async () => {
  const answer = await edge.ask("/pages/app.css", { now: null, headers: { "if-none-match": 'W/"abc-br"', "accept-encoding": "gzip" } });
  assert.equal(answer.status, 304);
});
