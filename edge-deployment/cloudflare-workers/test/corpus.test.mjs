// The same answer everywhere: what the reference evaluator decides about each request of the corpus, the worker does.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { corpus, form, startEdge, startKeys } from "./harness.mjs";

test("the worker decides as the reference does", async () => {
  // Lines of another corpus, but for dots in paths, which the platform climbs before the worker sees them.
  const others = process.env.EDGE_LINES ? JSON.parse(readFileSync(process.env.EDGE_LINES, "utf8")) : undefined;
  const lines = others?.filter(({ asked }) => !/\/\.\.?(?:[/?]|$)/.test(asked.target)) ?? corpus("decisions.json");
  assert.ok(lines.length >= 300);
  const keys = await startKeys(corpus("tokens.json").jwks.keys);
  const policy = form();
  policy.auth[0].proof.token.jwks = keys.url;
  const edge = await startEdge({ policy });
  const wrong = [];
  for (const { about, asked, cloudflare } of lines) {
    const { method, host, target, headers, country, script } = asked;
    const answer = await edge.ask(target, { method, host, headers, script, ...(country ? { country } : {}) });
    const at = (name) => answer.header(name) ?? "";
    const byEdge = answer.came === "edge";
    const found = { status: answer.status, came: answer.came };
    const rest = { rule: byEdge ? "" : at("rule"), key: byEdge ? "" : at("key"), kept: at("kept"), ttl: at("ttl"), tags: at("tags"), region: at("region") };
    for (const [name, value] of Object.entries(rest)) if (value !== "") found[name] = value;
    try {
      assert.deepEqual(found, cloudflare);
    } catch {
      wrong.push(`${about}: ${method} ${target} ${JSON.stringify(headers)}\n  found  ${JSON.stringify(found)}\n  wanted ${JSON.stringify(cloudflare)}`);
    }
  }
  await edge.close();
  keys.close();
  assert.equal(wrong.length, 0, `${wrong.length} of ${lines.length} decisions differ:\n${wrong.join("\n")}`);
});
