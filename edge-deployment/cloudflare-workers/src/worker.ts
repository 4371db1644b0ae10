// The edge as a Cloudflare Worker. It interprets the policy module that it was deployed with; what it must answer is
// said by the reference evaluator of the runtime (runtime/edge/src/evaluate.rs), step by step in the same order.

import policy from "./policy.js";
import { browserControl, freshness, keep, type Kept } from "./answer.ts";
import type { Env } from "./env.ts";
import { read } from "./form.ts";
import { verify } from "./guard.ts";
import { count, metrics } from "./metrics.ts";
import type { Taken } from "./objects.ts";
import { type Asked, asked as readRequest, cookie, isDevious, key as keyOf, plan as planOf, type Plan, regions, targetOf } from "./plan.ts";
import { ask, isFailure, passedOver } from "./regions.ts";
import { known, purge, setDown, since } from "./shared.ts";
import { forget, lookUp, original, store, type Stored } from "./store.ts";
import { normalised } from "./text.ts";

export { Bucket, Shared } from "./objects.ts";

const form = read(policy);
const LONGEST_TARGET = 8192;
const LONGEST_COMMAND = 65_536;
/** How long a request waits for another one that fetches the same answer. */
const COALESCE_MS = 10_000;
/** Headers that services take for another host, scheme, path or method; `backend.rs` of the runtime has the same list. */
const TAKEN_FOR_OTHERS = [
  "forwarded", "front-end-https", "x-forwarded-host", "x-forwarded-path", "x-forwarded-port", "x-forwarded-prefix",
  "x-forwarded-proto", "x-forwarded-scheme", "x-forwarded-server", "x-forwarded-ssl", "x-host", "x-http-method-override",
  "x-method-override", "x-original-host", "x-original-url", "x-rewrite-url", "x-url-scheme",
];

/** How an answer came about. */
interface Came {
  came: "hit" | "stale" | "stale-error" | "miss" | "bypass" | "edge";
  /** What it is made of; its headers are ours to change, and the answer itself is made once, at the end. */
  response: Pick<Response, "status" | "headers" | "body">;
  status?: string;
  region?: string;
  kept?: Kept;
  key?: string;
}

/** One request and what is known about it. */
interface Context { env: Env; ctx: ExecutionContext; request: Request; asked: Asked; plan: Plan; now: number; down: string[] }

export default {
  async fetch(request: Request, env: Env, ctx: ExecutionContext): Promise<Response> {
    const stated = env.OBSERVE ? Number(request.headers.get("repomind-test-now")) : 0;
    const now = stated > 0 ? stated : Date.now();
    const asked = readRequest(request);
    if (asked.path.startsWith("/.repomind/")) return operate(request, asked, env, now);
    const plan = planOf(form, asked);
    const shared = await known(env, ctx);
    const context: Context = { env, ctx, request, asked, plan, now, down: shared.down };
    const came = await answer(context);
    return finish(context, came);
  },
} satisfies ExportedHandler<Env>;

async function answer(context: Context): Promise<Came> {
  const { asked, plan, env, now } = context;
  if (asked.path.length + asked.query.length + 1 > LONGEST_TARGET) return refused(414, "URI Too Long");
  if (isDevious(asked.path)) return refused(400, "Bad Request");
  const limited = await limit(context);
  if (limited) return limited;
  if (plan.guard) {
    const refusal = await verify(plan.guard, asked, env, now);
    if (refusal) {
      const title = refusal.status === 401 ? "Unauthorized" : "Forbidden";
      const headers: HeadersInit = refusal.status === 401 ? { "www-authenticate": "Bearer" } : {};
      return refused(refusal.status, title, headers, refusal.why);
    }
  }
  return plan.bypass === undefined ? lookUpOrFetch(context) : pass(context);
}

/** Counts the request against every limit that matches; the first that is used up refuses it. */
async function limit({ plan, env, now }: Context): Promise<Came | undefined> {
  for (const [limit, bucket] of plan.limits) {
    let taken: Taken;
    if (limit.scope === "exact") {
      const object = env.BUCKETS.get(env.BUCKETS.idFromName(`${limit.name}:${bucket}`));
      taken = await object.take(limit.rate, limit.per_seconds, limit.burst, now);
    } else {
      const binding = env[`LIMIT_${limit.name.toUpperCase().replace(/[^A-Z0-9]/g, "_")}`] as RateLimit | undefined;
      const { success } = (await binding?.limit({ key: bucket })) ?? { success: true };
      taken = { passes: success, left: 0, retryAfter: limit.per_seconds };
    }
    if (!taken.passes) {
      return refused(429, "Too Many Requests", {
        "retry-after": String(taken.retryAfter),
        "ratelimit-policy": `"${limit.name}";q=${limit.burst};w=${Math.ceil((limit.burst * limit.per_seconds) / limit.rate)}`,
        "ratelimit": `"${limit.name}";r=0;t=${taken.retryAfter}`,
      });
    }
  }
  return undefined;
}

/** Not looked up: the regions answer. */
async function pass(context: Context): Promise<Came> {
  const { asked, request, plan } = context;
  const target = asked.path + (asked.query === "" ? "" : `?${asked.query}`);
  const headers = forwarded(context, new Headers(request.headers), new URL(request.url).host);
  const given = await fetchFrom(context, request.body, headers, { method: request.method, target });
  if (!given) return unanswered();
  // A connection that changes its protocol is handed on as it is.
  const response = given.response.status === 101 ? given.response : changeable(given.response);
  return { came: "bypass", status: `fwd=bypass; detail=${plan.bypass}`, region: given.region, response };
}

/** Those on the way, so that many who ask for one answer at once make one request. */
const fetching = new Map<string, Promise<unknown>>();

async function lookUpOrFetch(context: Context): Promise<Came> {
  const key = keyOf(context.plan.rule!.rule, context.asked);
  const found = await find(context, key);
  if (found?.fresh === "fresh") return given(context, key, found.stored, "hit");
  if (found?.fresh === "revalidate") {
    if (!fetching.has(key)) context.ctx.waitUntil(alone(key, () => refresh(context, key, found.stored)));
    return given(context, key, found.stored, "stale");
  }
  const other = fetching.get(key);
  if (other) {
    await Promise.race([other, scheduler.wait(COALESCE_MS)]);
    const now = await find(context, key);
    if (now?.fresh === "fresh") return given(context, key, now.stored, "hit");
  }
  const usable = found?.fresh === "if-error";
  const fetched = await alone(key, () => refresh(context, key, found?.stored));
  if (fetched && !(usable && isFailure(fetched.response.status))) {
    return { came: "miss", key, ...fetched, status: `fwd=${found ? "stale" : "uri-miss"}${fetched.kept ? `; stored; ttl=${fetched.kept.ttl}` : ""}` };
  }
  return usable ? given(context, key, found.stored, "stale-error") : { ...unanswered(), key };
}

async function alone<T>(key: string, run: () => Promise<T>): Promise<T> {
  const running = run();
  fetching.set(key, running.catch(() => undefined));
  try {
    return await running;
  } finally {
    fetching.delete(key);
  }
}

/** What is stored and not forbidden since: by other rules, or by a purge. */
async function find({ env, ctx, plan, now }: Context, key: string) {
  const stored = await lookUp(key);
  if (!stored || stored.kept.revision !== plan.rule!.revision) return undefined;
  const at = since(await known(env, ctx), stored.kept, stored.at);
  if (at === undefined) return undefined;
  return { stored: { ...stored, at }, fresh: freshness(stored.kept, now - at) };
}

function given({ request, now }: Context, key: string, stored: Stored, came: "hit" | "stale" | "stale-error"): Came {
  const headers = original(stored);
  const vary = headers.get("rm-vary");
  headers.delete("rm-vary");
  if (vary !== null) headers.set("vary", vary);
  const age = Math.max(0, Math.floor((now - stored.at) / 1000));
  headers.set("age", String(age));
  const tag = headers.get("etag");
  const asks = request.headers.get("if-none-match");
  const same = tag !== null && asks !== null && asks.split(",").some((one) => one.trim().replace(/^W\//, "") === tag.replace(/^W\//, ""));
  const bodiless = same || request.method === "HEAD";
  const response = { status: same ? 304 : stored.status, headers, body: bodiless ? null : stored.response.body };
  const left = stored.kept.ttl - age;
  return { came, response, key, kept: stored.kept, region: stored.region, status: `hit; ttl=${left}; detail=${came}` };
}

/**
 * Fetches an answer and stores it where it may be. An error leaves what is stored as it is; an answer that may not be
 * stored takes it away. What is shared is fetched by what is in its key and nothing else, so that nobody chooses what
 * others get.
 */
async function refresh(
  context: Context, key: string, stale: Stored | undefined,
): Promise<{ response: Came["response"]; region: string; kept?: Kept } | undefined> {
  const { plan, asked, now, request } = context;
  const rule = plan.rule!.rule;
  const inKey = (name: string) => rule.key.some((part) => typeof part === "object" && "header" in part && part.header === name);
  const headers = new Headers(request.headers);
  for (const name of TAKEN_FOR_OTHERS) if (!inKey(name)) headers.delete(name);
  forwarded(context, headers, rule.key.includes("host") ? asked.host : undefined);
  for (const name of ["if-none-match", "if-modified-since", "if-match", "if-unmodified-since", "cookie"]) headers.delete(name);
  for (const vary of rule.vary) headers.set(vary.header, normalised(asked.headers.get(vary.header) ?? "", vary.values));
  const cookies = rule.key.flatMap((part) => typeof part === "object" && "cookie" in part
    ? [`${part.cookie}=${cookie(asked.headers, part.cookie) ?? ""}`] : []);
  if (cookies.length > 0) headers.set("cookie", cookies.join("; "));
  // One form is stored for everybody; the platform puts it into another coding for who does not take this one.
  headers.set("accept-encoding", "br, gzip");
  const tag = stale?.response.headers.get("etag");
  if (tag) headers.set("if-none-match", tag);
  const fetched = await fetchFrom(context, null, headers, { method: "GET", target: targetOf(rule, asked) });
  if (!fetched) return undefined;
  let { response } = fetched;
  if (response.status === 304 && stale) {
    const merged = original(stale);
    response.headers.forEach((value, name) => merged.set(name, value));
    response = new Response(stale.response.clone().body, { status: stale.status, headers: merged });
  }
  const kept = keep(form, plan.rule!, asked, response.status, response.headers, now);
  if (typeof kept === "string") {
    if (stale && !isFailure(response.status)) await forget(key);
    return { ...fetched, response: changeable(response) };
  }
  const [ours, theirs] = response.body ? response.body.tee() : [null, null];
  const entry = { kept, at: now, region: fetched.region, status: response.status };
  const stored = store(key, entry, response.headers, ours);
  const shown = { ...changeable(response), body: request.method === "HEAD" ? null : theirs };
  if (request.method === "HEAD") context.ctx.waitUntil(theirs?.cancel() ?? Promise.resolve());
  await stored;
  return { ...fetched, response: shown, kept };
}

async function fetchFrom(
  context: Context, body: BodyInit | null, headers: Headers, { method, target }: { method: string; target: string },
) {
  const { asked, plan, now, down } = context;
  const order = regions(form, plan.route, asked.country, (region) => down.includes(region) || passedOver(region, now));
  // `Content-Length: 0` makes a body of nothing, and a request for something may be made with none at all.
  if (method === "GET" || method === "HEAD") {
    body = null;
    headers.delete("content-length");
  }
  // A body that is a stream can be read once: what is to be sent again is read first.
  const repeatable = body !== null && plan.route.attempts > 1 ? await new Response(body).arrayBuffer() : body;
  return ask(form, plan.route, order, target, { method, headers, body: repeatable }, now);
}

/** Headers for the regions: without what belongs to this connection, to tests, and to operators. */
function forwarded({ asked }: Context, headers: Headers, host: string | undefined): Headers {
  for (const name of [...headers.keys()]) {
    if (/^(cf-|repomind-test-|repomind-country$|x-real-ip$|connection$|keep-alive$|te$|transfer-encoding$)/.test(name)) headers.delete(name);
  }
  headers.set("x-forwarded-for", asked.client);
  if (host !== undefined) headers.set("x-forwarded-host", host);
  headers.set("x-forwarded-proto", "https");
  return headers;
}

function refused(status: number, title: string, headers: HeadersInit = {}, detail?: string): Came {
  const body = JSON.stringify({ type: "about:blank", title, status, ...(detail ? { detail } : {}) });
  const all = { "content-type": "application/problem+json", "cache-control": "no-store", ...headers };
  return { came: "edge", response: changeable(new Response(body, { status, headers: all })) };
}

/** An answer's parts, with headers that may be changed. */
const changeable = (response: Response): Came["response"] =>
  ({ status: response.status, headers: new Headers(response.headers), body: response.body });

const unanswered = () => refused(503, "No region answers");

/** What every answer gets, whatever it came from. */
function finish({ env, asked, plan, request }: Context, came: Came): Response {
  const { response } = came;
  const rule = plan.rule?.rule.name ?? "";
  if (response instanceof Response) return response;
  const { headers } = response;
  const control = came.came === "edge" ? undefined : browserControl(form, asked, response.status, headers);
  if (control) headers.set("cache-control", control);
  for (const name of ["cdn-cache-control", "cache-tag", "rm-vary"]) headers.delete(name);
  for (const [name, value] of form.answer_headers) if (!headers.has(name)) headers.set(name, value);
  if (came.status) headers.set("cache-status", `repomind; ${came.status}`);
  if (came.region) headers.set("repomind-edge-region", came.region);
  headers.set("repomind-request-id", request.headers.get("cf-ray") ?? crypto.randomUUID());
  if (env.OBSERVE) observe(headers, came, rule);
  count(env, rule, came.came, response.status);
  return new Response(response.body, { status: response.status, headers });
}

/** For tests: how the answer came about. */
function observe(headers: Headers, { came, key, kept, region }: Came, rule: string): void {
  headers.set("repomind-test-came", came);
  headers.set("repomind-test-rule", rule);
  if (key) headers.set("repomind-test-key", key);
  if (region) headers.set("repomind-test-region", region);
  if (!kept) return;
  headers.set("repomind-test-kept", kept.rule);
  headers.set("repomind-test-ttl", String(kept.ttl));
  headers.set("repomind-test-tags", kept.tags.join(" "));
}

/** What operators ask of the edge: purges, regions that are down, metrics. */
async function operate(request: Request, asked: Asked, env: Env, now: number): Promise<Response> {
  const shown = /^bearer (.+)$/i.exec(request.headers.get("authorization") ?? "")?.[1] ?? "";
  const no = (status: number, title: string) => Response.json({ type: "about:blank", title, status }, { status });
  if (!env.OPERATOR_TOKEN || !(await sameText(shown, env.OPERATOR_TOKEN))) return no(401, "Unauthorized");
  const what = `${request.method} ${asked.path}`;
  if (what === "GET /.repomind/metrics") return new Response(metrics(), { headers: { "content-type": "text/plain; version=0.0.4" } });
  if (what === "GET /.repomind/revision") return Response.json({ revision: form.revision, version: env.VERSION?.id });
  const text = request.method === "POST" ? await request.text() : "";
  const command = text.length <= LONGEST_COMMAND ? parse(text) : undefined;
  if (what === "POST /.repomind/purge" && command) {
    const urls = strings(command.urls).map((url) => URL.canParse(url) ? new URL(url) : undefined);
    const tags = [...strings(command.tags), ...urls.flatMap((url) => url ? [`url:${url.hostname}${url.pathname}`] : [])];
    if (tags.length === 0 || urls.includes(undefined)) return no(422, "Name tags or whole urls");
    await purge(env, tags, command.soft === true, now);
    return Response.json({ purged: tags });
  }
  if (what === "POST /.repomind/down" && command) {
    await setDown(env, strings(command.regions).filter((region) => region in form.origins));
    return Response.json({ down: command.regions });
  }
  return no(404, "Not Found");
}

function parse(text: string): Record<string, unknown> | undefined {
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch {
    return undefined;
  }
}

const strings = (value: unknown) => Array.isArray(value) ? value.filter((one): one is string => typeof one === "string") : [];

/** Compares without telling by time how much was right. */
async function sameText(a: string, b: string): Promise<boolean> {
  const hash = (text: string) => crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  const [x, y] = await Promise.all([hash(a), hash(b)]);
  return crypto.subtle.timingSafeEqual(x, y);
}
