import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { NOW, form, startEdge } from "./harness.mjs";

let edge;
before(async () => {
  const policy = form();
  for (const route of policy.routes) [route.break_after, route.break_seconds, route.timeout_ms] = [3, 10, 500];
  edge = await startEdge({ policy });
});
after(() => edge.close());

const region = (answer) => answer.headers.get("repomind-edge-region");

test("a country is sent to its nearest region, and strangers to the first of all", async () => {
  const { ranking } = edge.policy;
  for (const country of ["DE", "SG", "US", "BR"]) {
    const at = ranking.countries[country];
    const order = at === undefined ? ranking.default : ranking.orders[at];
    const answer = await edge.ask(`/local/${country}`, { country });
    assert.equal(region(answer), order[0], country);
    assert.equal(answer.header("key"), `path=/local/${country} country=${country}`);
  }
  assert.equal(region(await edge.ask("/local/nowhere")), ranking.default[0]);
  assert.equal(region(await edge.ask("/local/tor", { country: "T1" })), ranking.default[0]);
});

test("a request that may be repeated goes to the next region, and no other", async () => {
  for (const script of [{ down: ["ap-southeast"] }, { unwell: ["ap-southeast"] }]) {
    const answer = await edge.ask(`/pinned/${JSON.stringify(script).length}`, { script, now: NOW - 100_000 });
    assert.equal(answer.status, 200);
    assert.equal(region(answer), "us-east");
  }
  const seen = edge.regions.seen.length;
  const posted = await edge.ask("/pinned/post", { method: "POST", body: "x", script: { unwell: ["ap-southeast"] }, now: NOW - 50_000 });
  assert.equal(posted.status, 503);
  assert.equal(edge.regions.seen.length, seen + 1);
  const alone = await edge.ask("/once/x", { script: { down: ["us-east", "eu-west", "ap-southeast"] }, now: NOW - 40_000 });
  assert.equal(alone.status, 503);
  assert.equal(alone.came, "edge");
});

test("a region that fails in a row is passed over for a while, and then tried again", async () => {
  const script = { down: ["ap-southeast"] };
  const asked = () => edge.regions.seen.filter((seen) => seen.region === "ap-southeast").length;
  await edge.ask("/pinned/reset", { now: NOW });
  const before = asked();
  for (let number = 0; number < 6; number += 1) {
    assert.equal(region(await edge.ask(`/pinned/b${number}`, { script, now: NOW })), "us-east");
  }
  assert.equal(asked() - before, 3);
  assert.equal(region(await edge.ask("/pinned/again", { now: NOW + 10_001 })), "ap-southeast");
});

test("a region that takes too long counts as one that does not answer", async () => {
  edge.regions.delay = 800;
  const slow = await edge.ask("/once/slow", { now: NOW + 30_000 });
  edge.regions.delay = 0;
  assert.equal(slow.status, 503);
});

test("a region that operators report down is not asked, and all are where all are down", async () => {
  await edge.operate("down", { regions: ["ap-southeast", "no-such-region"] });
  assert.equal(region(await edge.ask("/pinned/down", { now: NOW + 60_000 })), "us-east");
  await edge.operate("down", { regions: ["ap-southeast", "us-east", "eu-west"] });
  assert.equal(region(await edge.ask("/pinned/all", { now: NOW + 60_000 })), "ap-southeast");
  await edge.operate("down", { regions: [] });
  assert.equal(region(await edge.ask("/pinned/up", { now: NOW + 60_000 })), "ap-southeast");
});
