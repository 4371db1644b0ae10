import assert from "node:assert/strict";
import { request } from "node:http";
import { after, before, test } from "node:test";
import { NOW, form, startEdge } from "./harness.mjs";

let edge;
before(async () => { edge = await startEdge(); });
after(() => edge.close());

const all = ["us-east", "eu-west", "ap-southeast"];
const soon = () => new Promise((done) => setTimeout(done, 20));
/** Waits for what happens behind an answer's back. */
async function until(test) {
  for (let left = 500; left > 0; left -= 1) {
    if (await test()) return;
    await soon();
  }
  assert.fail("it never came to pass");
}

test("an answer is fetched once and given again with its age and status", async () => {
  const seen = edge.regions.seen.length;
  const first = await edge.ask("/pages/a?b=2&a=1&utm_source=mail");
  assert.equal(first.came, "miss");
  assert.equal(first.headers.get("cache-status"), "repomind; fwd=uri-miss; stored; ttl=60");
  const second = await edge.ask("/pages/a?a=1&b=2", { now: NOW + 10_000 });
  assert.equal(second.came, "hit");
  assert.equal(second.headers.get("cache-status"), "repomind; hit; ttl=50; detail=hit");
  assert.equal(second.headers.get("age"), "10");
  assert.equal(second.body, first.body);
  assert.equal(second.headers.get("x-content-type-options"), "nosniff");
  assert.equal(edge.regions.seen.length, seen + 1);
  for (const hidden of ["rm-meta", "cache-tag", "cdn-cache-control", "rm-cache-control"]) assert.equal(second.headers.get(hidden), null);
});

test("a stale answer is given at once while a fresh one is fetched, once", async () => {
  await edge.ask("/short/swr");
  const seen = edge.regions.seen.length;
  edge.regions.delay = 100;
  const stale = await Promise.all([1, 2, 3].map(() => edge.ask("/short/swr", { now: NOW + 2_000 })));
  assert.deepEqual(stale.map(({ came }) => came), ["stale", "stale", "stale"]);
  await until(async () => (await edge.ask("/short/swr", { now: NOW + 2_000 })).came === "hit");
  edge.regions.delay = 0;
  assert.equal(edge.regions.seen.length, seen + 1);
});

test("where no region answers, the stale answer is given again and again, and then no more", async () => {
  await edge.ask("/short/sie");
  for (const script of [{ unwell: all }, { down: all }]) {
    const stale = await edge.ask("/short/sie", { now: NOW + 10_000, script });
    assert.equal(stale.came, "stale-error");
    assert.equal(stale.status, 200);
  }
  const gone = await edge.ask("/short/sie", { now: NOW + 61_000, script: { down: all } });
  assert.equal(gone.status, 503);
  assert.equal(gone.came, "edge");
  const unwell = await edge.ask("/short/sie", { now: NOW + 61_000, script: { unwell: all } });
  assert.equal(unwell.status, 503);
  assert.equal(unwell.came, "miss");
  const back = await edge.ask("/short/sie", { now: NOW + 61_000 });
  assert.equal(back.headers.get("cache-status"), "repomind; fwd=stale; stored; ttl=1");
});

test("many who ask for one answer at once make one request", async () => {
  const seen = edge.regions.seen.length;
  edge.regions.delay = 200;
  const answers = await Promise.all(Array.from({ length: 12 }, () => edge.ask("/pages/rush")));
  edge.regions.delay = 0;
  assert.ok(answers.every(({ status }) => status === 200));
  assert.equal(edge.regions.seen.length, seen + 1);
});

test("an answer past its time is revalidated with 304 and stored anew", async () => {
  const script = { headers: [["etag", '"v1"'], ["cache-control", "public, max-age=5"]] };
  const first = await edge.ask("/pages/etag", { script });
  assert.equal(first.headers.get("cache-control"), "public, max-age=5");
  const later = await edge.ask("/pages/etag", { now: NOW + 120_000, script });
  assert.equal(later.came, "miss");
  assert.equal(later.status, 200);
  assert.equal(later.body, first.body);
  assert.equal(edge.regions.seen.at(-1).headers["if-none-match"], '"v1"');
  assert.equal((await edge.ask("/pages/etag", { now: NOW + 121_000, script })).came, "hit");
});

test("a browser that has the answer already is told so", async () => {
  const script = { headers: [["etag", 'W/"x"']] };
  await edge.ask("/pages/known", { script });
  const known = await edge.ask("/pages/known", { headers: { "if-none-match": '"y", "x"' } });
  assert.equal(known.status, 304);
  assert.equal(known.body, "");
  const other = await edge.ask("/pages/known", { headers: { "if-none-match": '"y"' } });
  assert.equal(other.status, 200);
});

test("HEAD is answered from what GET stored, and stores for GET", async () => {
  const head = await edge.ask("/pages/head", { method: "HEAD" });
  assert.equal(head.came, "miss");
  assert.equal(head.body, "");
  const get = await edge.ask("/pages/head");
  assert.equal(get.came, "hit");
  assert.match(get.body, /^from /);
  const again = await edge.ask("/pages/head", { method: "HEAD" });
  assert.equal(again.came, "hit");
  assert.equal(again.body, "");
});

test("a purge by tag, rule or URL takes what it names and nothing else", async () => {
  const script = { headers: [["cache-tag", "one, two"]] };
  await edge.ask("/pages/tagged", { script });
  await edge.ask("/pages/plain");
  await edge.ask("/docs/plain");
  const hits = async (path, came) => assert.equal((await edge.ask(path, { now: NOW + 2 })).came, came, path);
  await edge.operate("purge", { tags: ["two"] });
  // The purge took place at the clock of the operator's request, which is now in earnest: later than all that is stored.
  assert.equal((await edge.ask("/pages/tagged")).came, "miss");
  await hits("/pages/plain", "hit");
  await edge.operate("purge", { urls: ["https://www.example.org/docs/plain"] });
  await hits("/docs/plain", "miss");
  await hits("/pages/plain", "hit");
  await edge.operate("purge", { tags: ["rule:pages"] });
  await hits("/pages/plain", "miss");
});

test("a soft purge leaves a stale answer for when no region answers", async () => {
  const now = Date.now();
  await edge.ask("/docs/soft", { now });
  await edge.operate("purge", { tags: ["docs"], soft: true });
  const later = Date.now() + 1;
  assert.equal((await edge.ask("/docs/soft", { now: later, script: { down: all } })).came, "stale");
  assert.equal((await edge.ask("/docs/soft", { now: later + 31_000, script: { down: all } })).came, "stale-error");
});

test("what was stored under rules that are not in force any more is not given", async () => {
  const regions = edge.regions;
  const policy = form();
  policy.rules.find(({ rule }) => rule.name === "pages").revision = "0000000000000000";
  await edge.ask("/pages/old");
  const persist = edge.worker;
  assert.ok(persist);
  const other = await startEdge({ policy, regions });
  assert.equal((await other.ask("/pages/old")).came, "miss");
  await other.close();
});

test("answers are shared without what belongs to one user", async () => {
  await edge.ask("/pages/mine", { headers: { cookie: "theme=dark", "repomind-test-x": "1", "if-none-match": '"z"' } });
  const { headers } = edge.regions.seen.at(-1);
  for (const name of ["cookie", "repomind-test-x", "repomind-test-now", "if-none-match", "cf-connecting-ip"]) assert.equal(headers[name], undefined, name);
  assert.equal(headers["x-forwarded-for"], "192.0.2.1");
  await edge.ask("/shop/x", { headers: { cookie: "theme=dark; currency=EUR" } });
  assert.equal(edge.regions.seen.at(-1).headers.cookie, "currency=EUR");
  await edge.ask("/docs/lang", { headers: { "accept-language": "fr-CA, en;q=0" } });
  assert.equal(edge.regions.seen.at(-1).headers["accept-language"], "fr");
});

test("what changes something reaches its region whole", async () => {
  const posted = await edge.ask("/pages/post", { method: "POST", body: "hello" });
  assert.equal(posted.came, "bypass");
  assert.deepEqual([edge.regions.seen.at(-1).method, edge.regions.seen.at(-1).body], ["POST", "hello"]);
  await edge.ask("/pages/put", { method: "PUT", body: "twice", script: { unwell: ["us-east"] } });
  const tried = edge.regions.seen.slice(-2);
  assert.deepEqual(tried.map(({ body }) => body), ["twice", "twice"]);
});

test("a request for a page that says that it is empty is handed on all the same", async () => {
  const url = new URL("/pages/empty", await edge.worker.ready);
  const headers = { "content-length": "0", cookie: "session=1" };
  const answer = await new Promise((done, failed) => request(url, { headers }, done).on("error", failed).end());
  answer.resume();
  assert.equal(answer.statusCode, 200);
  assert.match(answer.headers["cache-status"], /fwd=bypass/);
});

test("paths that mean another one, and endless ones, are refused", async () => {
  for (const path of ["/pages/%2e%2e%2fx", "/a%2Fb", "/a//b", "/a%5cb"]) assert.equal((await edge.ask(path)).status, 400, path);
  assert.equal((await edge.ask(`/pages/${"x".repeat(9000)}`)).status, 414);
});

test("without a clock of its own a request takes place now", async () => {
  const answer = await edge.ask("/pages/now", { now: null });
  assert.equal(answer.came, "miss");
  assert.equal((await edge.ask("/pages/now", { now: null })).came, "hit");
});
