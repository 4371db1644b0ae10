// Three locations, one count.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Miniflare } from "miniflare";
import { NOW, configuration, form, startRegions } from "./harness.mjs";

test("an exact limit over three edges lets through what it says, to the request", async () => {
  const policy = form();
  policy.limits = [{ ...policy.limits[0], name: "all", when: { ...policy.limits[0].when, paths: ["/v1/"] }, rate: 50, per_seconds: 50, burst: 50, scope: "exact", key: "everyone" }];
  const regions = await startRegions(Object.keys(policy.origins));
  policy.origins = regions.origins;
  const shared = { className: "Bucket", scriptName: "edge-0", useSQLite: true };
  const workers = [0, 1, 2].map((number) => {
    const one = { ...configuration(policy), name: `edge-${number}` };
    if (number > 0) one.durableObjects = { ...one.durableObjects, BUCKETS: shared };
    return one;
  });
  const edges = new Miniflare({ cf: false, workers });
  await edges.ready;
  const each = await Promise.all([0, 1, 2].map((number) => edges.getWorker(`edge-${number}`)));
  const ask = (edge, now) => edge.fetch("https://www.example.org/v1/x", { headers: { "repomind-test-now": String(now) } });
  const round = async (count, now) => {
    const answers = await Promise.all(Array.from({ length: count }, (_, at) => ask(each[at % 3], now)));
    for (const answer of answers) await answer.text();
    return answers.filter(({ status }) => status === 200).length;
  };
  assert.equal(await round(120, NOW), 50, "all at once");
  // A request a second comes back; ten seconds later, ten may pass.
  assert.equal(await round(60, NOW + 10_000), 10, "after ten seconds");
  await edges.dispose();
  regions.close();
});
