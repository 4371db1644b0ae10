// What somebody tries who wants others to get what they did not ask for, or nothing at all.

import assert from "node:assert/strict";
import { generateKeyPairSync, createHmac, createSign } from "node:crypto";
import { after, before, test } from "node:test";
import { NOW, form, startEdge, startKeys } from "./harness.mjs";

let edge;
before(async () => { edge = await startEdge(); });
after(() => edge.close());

const all = ["us-east", "eu-west", "ap-southeast"];
const last = () => edge.regions.seen.at(-1);

/** Everything by which an attacker would have a say in what others get. */
const poison = {
  "x-forwarded-host": "evil.example", "x-forwarded-proto": "http", "x-forwarded-port": "1", forwarded: "host=evil.example",
  "x-original-url": "/admin", "x-rewrite-url": "/admin", "x-http-method-override": "DELETE", "x-forwarded-for": "203.0.113.9",
  cookie: "evil=1; currency=EUR", "x-tenant": "a",
};

test("what is shared is fetched by what is in its key and nothing else", async () => {
  for (const [asked, target, host] of [
    ["/pages/p?utm_source=evil&b=2&a=1&gclid=evil", "/pages/p?a=1&b=2", "www.example.org"],
    ["/shop/p?evil=1&sort=up&page=1&page=evil", "/shop/p?page=1&sort=up", "www.example.org"],
    ["/static/p.js?evil", "/static/p.js", "www.example.org"],
    ["/tenants/p?a=1", "/tenants/p?a=1", undefined],
  ]) {
    const answer = await edge.ask(asked, { host: "www.example.org:1337", headers: poison });
    assert.equal(answer.came, "miss", asked);
    const seen = last();
    assert.equal(seen.target, target);
    assert.equal(seen.headers["x-forwarded-host"], host);
    assert.equal(seen.headers["x-forwarded-proto"], "https");
    assert.equal(seen.headers.cookie, target.startsWith("/shop/") ? "currency=EUR" : undefined);
    for (const [name, value] of Object.entries(seen.headers)) assert.doesNotMatch(String(value), /evil|admin|1337|DELETE|203\.0/, `${asked}: ${name}`);
    assert.equal((await edge.ask(target, { headers: { "x-tenant": "a", cookie: "currency=EUR" } })).came, "hit");
  }
  // What is not shared is the client's own.
  await edge.ask("/pages/p?utm_source=mine", { host: "www.example.org:1337", headers: { authorization: "Bearer x" } });
  assert.equal(last().target, "/pages/p?utm_source=mine");
  assert.equal(last().headers["x-forwarded-host"], "www.example.org:1337");
});

test("what the origin takes back is not given when it fails", async () => {
  for (const [name, script] of [
    ["private", { headers: [["cache-control", "private"]] }],
    ["forbidden", { status: 403 }],
    ["cookie", { headers: [["set-cookie", "a=b"]] }],
  ]) {
    const target = `/brief/${name}`;
    assert.equal((await edge.ask(target)).came, "miss");
    assert.equal((await edge.ask(target, { now: NOW + 2_000, script })).came, "miss");
    const failed = await edge.ask(target, { now: NOW + 3_000, script: { down: all } });
    assert.equal(failed.status, 503, `${name}: what was taken back is given`);
  }
});

test("a client with many IPv6 addresses is one", async () => {
  const policy = form();
  Object.assign(policy.limits[0], { key: "client", scope: "exact" });
  const limited = await startEdge({ policy });
  for (const network of [
    ["2001:db8::1", "2001:db8:0:0:5::1", "2001:db8::1:2:3:4", "2001:db8:0:0:1:0:0:1", "2001:db8::ffff:1", "2001:db8::"],
    ["2001:db8:1:2::1", "2001:DB8:1:2:3:4:5:6", "2001:db8:1:2::", "2001:db8:1:2:0:0:0:9", "2001:db8:1:2:8::", "2001:db8:1:2::7"],
    ["2001:0:0:7::1", "2001:0:0:7:1::", "2001::7:1:2:3:4", "2001::7:0:0:0:4", "2001:0:0:7:9:9:9:9", "2001::7:9:0:0:4"],
  ]) {
    const statuses = [];
    for (const client of network) statuses.push((await limited.ask("/limited/x", { client })).status);
    assert.deepEqual(statuses, [200, 200, 200, 200, 200, 429], network[0]);
  }
  assert.equal((await limited.ask("/limited/x", { client: "2001:db8:0:1::1" })).status, 200);
  assert.equal((await limited.ask("/limited/x", { client: "203.0.113.1" })).status, 200);
  await limited.close();
});

const part = (value) => Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");

test("a token that says itself how it is to be believed is not believed", async () => {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const own = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const jwk = { ...publicKey.export({ format: "jwk" }), kid: "one", alg: "ES256", use: "sig" };
  const keys = await startKeys([jwk, { kty: "oct", kid: "shared", k: part("secret") }]);
  const policy = form();
  policy.auth[0].proof.token.jwks = keys.url;
  policy.auth[0].origin_may_verify = false;
  const guarded = await startEdge({ policy });
  const claims = { iss: "https://id.example", aud: "corpus", exp: NOW / 1000 + 600 };
  const sign = (header, body = claims, key = privateKey) => {
    const text = `${part(header)}.${part(body)}`;
    return `${text}.${createSign("sha256").update(text).sign({ key, dsaEncoding: "ieee-p1363" }).toString("base64url")}`;
  };
  const hmac = (header, secret, body = claims) => {
    const text = `${part(header)}.${part(body)}`;
    return `${text}.${createHmac("sha256", secret).update(text).digest("base64url")}`;
  };
  const good = { alg: "ES256", kid: "one" };
  const pem = publicKey.export({ format: "pem", type: "spki" });
  const ask = (token) => guarded.ask("/members/x", { headers: { authorization: `Bearer ${token}` } });
  assert.equal((await ask(sign(good))).status, 200);
  const bad = {
    "alg none": `${part({ alg: "none", kid: "one" })}.${part(claims)}.`,
    "alg none with a signature": `${part({ alg: "none", kid: "one" })}.${part(claims)}.${part("x")}`,
    "alg nOnE": `${part({ alg: "nOnE", kid: "one" })}.${part(claims)}.${part("x")}`,
    "the public key as a secret": hmac({ alg: "HS256", kid: "one" }, pem),
    "the public key's JWK as a secret": hmac({ alg: "HS256", kid: "one" }, JSON.stringify(jwk)),
    "a secret of the set": hmac({ alg: "HS256", kid: "shared" }, "secret"),
    "ES256 by a secret": hmac({ alg: "ES256", kid: "shared" }, "secret"),
    "its own key": sign({ ...good, jwk: own.publicKey.export({ format: "jwk" }) }, claims, own.privateKey),
    "its own set of keys": sign({ ...good, jku: keys.url, x5u: keys.url }, claims, own.privateKey),
    "another key's name": sign({ alg: "ES256", kid: "two" }),
    "a path for a name": sign({ alg: "ES256", kid: "../../dev/null" }),
    "an extension nobody knows": sign({ ...good, crit: ["x"], x: 1 }),
    "a signature of nothing": `${part(good)}.${part(claims)}.${Buffer.alloc(64).toString("base64url")}`,
    "no end": sign(good, { ...claims, exp: undefined }),
    "an end that is a text": sign(good, { ...claims, exp: "9999999999" }),
    "another audience": sign(good, { ...claims, aud: ["other", "corpus2"] }),
    "no issuer": sign(good, { ...claims, iss: undefined }),
    "an issuer in a list": sign(good, { ...claims, iss: ["https://id.example"] }),
    "not yet": sign(good, { ...claims, nbf: NOW / 1000 + 300 }),
    "huge": sign(good, { ...claims, pad: "x".repeat(9000) }),
    "claims that are no object": sign(good, "null"),
    "four parts": `${sign(good)}.${part("x")}`,
  };
  for (const [why, token] of Object.entries(bad)) {
    const answer = await ask(token);
    assert.equal(answer.status, 401, `${why}: ${answer.body}`);
  }
  // The last or the first of two, whoever reads them: none.
  const two = await guarded.ask("/members/x", { headers: new Headers([["authorization", `Bearer ${sign(good)}`], ["authorization", "Bearer x"]]) });
  assert.equal(two.status, 401);
  await guarded.close();
  keys.close();
});

test("a command that is not one is answered and changes nothing", async () => {
  await edge.ask("/pages/kept");
  for (const command of ["null", "[]", "1", "{", '{"urls":["not a url"]}', '{"tags":[1,null]}', '{"tags":"pages"}', '{"urls":[{}]}']) {
    const answer = await edge.operate("purge", command);
    assert.ok([404, 422].includes(answer.status), `${command}: ${answer.status} ${await answer.text()}`);
  }
  assert.equal((await edge.ask("/pages/kept")).came, "hit");
});
