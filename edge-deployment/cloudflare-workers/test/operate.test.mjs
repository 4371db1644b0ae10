import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { form, startEdge } from "./harness.mjs";

let edge;
before(async () => { edge = await startEdge(); });
after(() => edge.close());

test("only operators purge, report regions and read metrics", async () => {
  for (const token of ["", "wrong"]) assert.equal((await edge.operate("purge", { tags: ["x"] }, "POST", token)).status, 401);
  assert.equal((await edge.operate("metrics", undefined, "GET", "wrong")).status, 401);
  const open = await startEdge({ bindings: { OPERATOR_TOKEN: "" } });
  assert.equal((await open.operate("purge", { tags: ["x"] }, "POST", "")).status, 401, "without a token nobody is an operator");
  await open.close();
});

test("a bad command changes nothing and says so", async () => {
  assert.equal((await edge.operate("purge", "not json")).status, 404);
  assert.equal((await edge.operate("purge", {})).status, 422);
  assert.equal((await edge.operate("purge", "x".repeat(70_000))).status, 404);
  assert.equal((await edge.operate("nonsense", {})).status, 404);
  assert.equal((await edge.operate("purge", undefined, "GET")).status, 404);
});

test("each rule counts what came of its requests", async () => {
  await edge.ask("/pages/m");
  await edge.ask("/pages/m");
  await edge.ask("/nothing/m", { script: { status: 404 } });
  const text = await (await edge.operate("metrics", undefined, "GET")).text();
  assert.match(text, /repomind_edge_requests_total\{rule="pages",came="hit",status="200"\} 1\n/);
  assert.match(text, /\{rule="pages",came="miss",status="200"\} 1\n/);
  assert.match(text, /\{rule="",came="bypass",status="404"\} 1\n/);
});

test("the revision that serves can be asked for", async () => {
  assert.deepEqual(await (await edge.operate("revision", undefined, "GET")).json(), { revision: form().revision });
});

test("purges beyond what is remembered take everything that is older", async () => {
  const now = Date.now();
  await edge.ask("/pages/forgotten", { now });
  assert.equal((await edge.ask("/pages/forgotten", { now })).came, "hit");
  for (let part = 0; part < 11; part += 1) {
    await edge.operate("purge", { tags: Array.from({ length: 100 }, (_, at) => `tag-${part}-${at}`) });
  }
  assert.equal((await edge.ask("/pages/forgotten", { now })).came, "miss");
});

test("a worker refuses a policy that it cannot read", async () => {
  const policy = form();
  policy.version = 2;
  await assert.rejects(startEdge({ policy }));
});
