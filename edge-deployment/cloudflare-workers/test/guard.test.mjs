import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { after, before, test } from "node:test";
import { SignJWT, exportJWK, generateKeyPair } from "jose";
import { NOW, form, startEdge, startKeys } from "./harness.mjs";

const SECRET = "a secret of the tests";
let edge, keys, first;

async function pair(kid) {
  const { publicKey, privateKey } = await generateKeyPair("ES256", { extractable: true });
  return { kid, privateKey, jwk: { ...(await exportJWK(publicKey)), kid, alg: "ES256", use: "sig" } };
}

async function token({ kid, privateKey }, { issuer = "https://id.example", audience = "corpus", life = 300, notBefore } = {}) {
  const jwt = new SignJWT({}).setProtectedHeader({ alg: "ES256", kid }).setIssuer(issuer).setAudience(audience)
    .setSubject("somebody").setExpirationTime(NOW / 1000 + life);
  if (notBefore) jwt.setNotBefore(NOW / 1000 + notBefore);
  return jwt.sign(privateKey);
}

const bearer = (token) => ({ headers: { authorization: `Bearer ${token}` } });

before(async () => {
  first = await pair("k1");
  keys = await startKeys([first.jwk]);
  const policy = form();
  policy.auth[0].proof.token.jwks = keys.url;
  policy.auth.push({
    ...policy.auth[0], name: "signed", when: { ...policy.auth[0].when, paths: ["/signed/"] }, except: [],
    proof: { signed_url: { secret: "DOWNLOADS", signature: "sig", expires: "exp" } }, origin_may_verify: false,
  });
  policy.limits.push({ ...policy.limits[0], name: "exactly", when: { ...policy.limits[0].when, paths: ["/exact/"] }, rate: 3, per_seconds: 30, burst: 3, scope: "exact", key: "client" });
  policy.limits.push({ ...policy.limits[0], name: "country", when: { ...policy.limits[0].when, paths: ["/by-country/"] }, rate: 1, per_seconds: 60, burst: 1, scope: "exact", key: "country" });
  policy.limits.push({ ...policy.limits[0], name: "everyone", when: { ...policy.limits[0].when, paths: ["/everyone/"] }, rate: 1, per_seconds: 60, burst: 1, scope: "exact", key: "everyone" });
  edge = await startEdge({ policy, bindings: { SECRET_DOWNLOADS: SECRET } });
});
after(async () => { await edge.close(); keys.close(); });

test("a token of the right issuer lets in, and what it fetched is kept for nobody else", async () => {
  const answer = await edge.ask("/members/a", bearer(await token(first)));
  assert.equal(answer.status, 200);
  assert.equal(answer.came, "bypass");
});

test("no token, a forged, an expired, a foreign and a premature one are refused, and say why", async () => {
  const stranger = await pair("k1");
  const cases = [
    [undefined, "missing"], ["x.y", "missing"], ["a.b.c", "invalid"],
    [await token(stranger), "invalid"], [await token(first, { life: -60 }), "expired"],
    [await token(first, { issuer: "https://evil.example" }), "invalid"], [await token(first, { audience: "others" }), "invalid"],
    [await token(first, { notBefore: 120 }), "invalid"], [await token(await pair("unknown")), "invalid"],
  ];
  for (const [shown, why] of cases) {
    const answer = await edge.ask("/members/a", shown === undefined ? {} : bearer(shown));
    assert.equal(answer.status, 401, why);
    assert.equal(answer.headers.get("www-authenticate"), "Bearer");
    assert.equal(JSON.parse(answer.body).detail, why);
  }
  assert.equal((await edge.ask("/members/open/a")).status, 200, "what is open stays open");
});

test("a token signed with a key that the issuer has just taken up is let in", async () => {
  const next = await pair("k2");
  assert.equal((await edge.ask("/members/b", bearer(await token(next)))).status, 401);
  keys.keys = [first.jwk, next.jwk];
  assert.equal((await edge.ask("/members/b", bearer(await token(next)))).status, 200);
  keys.keys = [next.jwk];
  // A key that was withdrawn counts no more once the set was read again.
  assert.equal((await edge.ask("/members/b", bearer(await token(await pair("k3"))))).status, 401);
  assert.equal((await edge.ask("/members/b", bearer(await token(first)))).status, 401);
});

function signed(path, until, secret = SECRET) {
  const signature = createHmac("sha256", secret).update(`${path}?exp=${until}`).digest("hex");
  return `${path}?exp=${until}&sig=${signature}`;
}

test("a signed URL opens its own path for its own time, and no other", async () => {
  const until = NOW / 1000 + 60;
  assert.equal((await edge.ask(signed("/signed/a", until))).status, 200);
  assert.equal((await edge.ask(signed("/signed/a", until), { now: NOW + 60_000 })).status, 403);
  assert.equal((await edge.ask(signed("/signed/a", until).replace("/signed/a", "/signed/b"))).status, 403);
  assert.equal((await edge.ask(signed("/signed/a", until, "guessed"))).status, 403);
  for (const query of ["", "?exp=1", "?sig=00", `?exp=${until}&sig=zz`, `?exp=${until}&sig=${"0".repeat(64)}`]) {
    assert.equal((await edge.ask(`/signed/a${query}`)).status, 403, query);
  }
  assert.equal((await edge.ask(signed("/signed/a", "soon"))).status, 403);
});

test("an exact limit lets through so many and then says when to come again", async () => {
  const statuses = [];
  for (let number = 0; number < 5; number += 1) statuses.push((await edge.ask("/exact/x")).status);
  assert.deepEqual(statuses, [200, 200, 200, 429, 429]);
  const refused = await edge.ask("/exact/x");
  assert.equal(refused.headers.get("retry-after"), "10");
  assert.equal(refused.headers.get("ratelimit-policy"), '"exactly";q=3;w=30');
  assert.equal((await edge.ask("/exact/x", { now: NOW + 9_999 })).status, 429);
  assert.equal((await edge.ask("/exact/x", { now: NOW + 10_000 })).status, 200);
  assert.equal((await edge.ask("/exact/x", { client: "192.0.2.2" })).status, 200);
  assert.equal((await edge.ask("/by-country/x", { country: "DE" })).status, 200);
  assert.equal((await edge.ask("/by-country/x", { country: "DE" })).status, 429);
  assert.equal((await edge.ask("/by-country/x")).status, 200);
  assert.equal((await edge.ask("/everyone/x")).status, 200);
  assert.equal((await edge.ask("/everyone/x", { client: "192.0.2.9" })).status, 429);
});

test("a coarse limit refuses what is too much", async () => {
  const statuses = [];
  for (let number = 0; number < 7; number += 1) statuses.push((await edge.ask("/limited/x", { headers: { "x-client": "a" } })).status);
  assert.deepEqual(statuses, [200, 200, 200, 200, 200, 429, 429]);
});
