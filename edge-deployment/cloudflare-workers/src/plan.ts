// What the form says about a request, before anything is looked up.

import type { CacheRule, EdgeAuth, EdgeRoute, Form, KeyPart, Named, RateLimit, RequestMatch, Rule } from "./form.ts";
import { escaped, network, normalised, only, sorted } from "./text.ts";

export interface Asked {
  method: string;
  host: string;
  path: string;
  query: string;
  headers: Headers;
  country: string | null;
  client: string;
}

/** The request as rules see it. Country and address come from the platform, never from the client. */
export function asked(request: Request): Asked {
  const url = new URL(request.url);
  const country = String(request.cf?.country ?? "");
  return {
    method: request.method,
    host: url.hostname.toLowerCase(),
    path: url.pathname,
    query: url.search.slice(1),
    headers: request.headers,
    country: /^[A-Z]{2}$/.test(country) && country !== "XX" ? country : null,
    client: request.headers.get("cf-connecting-ip") ?? "",
  };
}

/** Whether the path may mean another one to somebody behind the edge. */
export function isDevious(path: string): boolean {
  return /%(?:2[ef]|5c|00|3[0-9]|[46][1-9a-f]|[57][0-9a])|\\|\/\//i.test(path) || path.split("/").some((part) => part === "." || part === "..");
}

export function cookie(headers: Headers, name: string): string | undefined {
  const pairs = (headers.get("cookie") ?? "").split(";").map((pair) => pair.trim());
  return pairs.find((pair) => pair.startsWith(`${name}=`))?.slice(name.length + 1);
}

export function holds(when: RequestMatch, asked: Asked): boolean {
  const is = (wanted: Named, found: string | null | undefined) =>
    found != null && (wanted.value === null || wanted.value === found);
  return (when.paths.length === 0 || when.paths.some((prefix) => asked.path.startsWith(prefix)))
    && (when.suffixes.length === 0 || when.suffixes.some((suffix) => asked.path.endsWith(suffix)))
    && (when.methods.length === 0 || when.methods.includes(asked.method))
    && when.headers.every((wanted) => is(wanted, asked.headers.get(wanted.name)))
    && when.cookies.every((wanted) => is(wanted, cookie(asked.headers, wanted.name)));
}

const reads = (method: string) => method === "GET" || method === "HEAD";

export function matches(rule: CacheRule, asked: Asked): boolean {
  return (rule.when.methods.length > 0 || reads(asked.method)) && holds(rule.when, asked);
}

/** Whether a rule waits for the answer before it knows that it is meant. */
export const refines = (rule: CacheRule) => rule.statuses.length > 0 || rule.content_types.length > 0;

export function answers(rule: CacheRule, status: number, contentType: string): boolean {
  const statuses = rule.statuses.length === 0 ? [200, 301, 308] : rule.statuses;
  const type = contentType.toLowerCase();
  return statuses.includes(status)
    && (rule.content_types.length === 0 || rule.content_types.some((prefix) => type.startsWith(prefix)));
}

export function deciding(form: Form, asked: Asked, status: number, contentType: string): Rule | undefined {
  return form.rules.find(({ rule }) => matches(rule, asked) && answers(rule, status, contentType));
}

export function key(rule: CacheRule, asked: Asked): string {
  const header = (name: string) => escaped(asked.headers.get(name) ?? "");
  const part = (part: KeyPart): string => {
    if (part === "host") return `host=${escaped(asked.host)}`;
    if (part === "path") return `path=${asked.path}`;
    if (part === "query") return `query=${sorted(asked.query)}`;
    if (part === "country") return `country=${asked.country ?? "XX"}`;
    if ("query_only" in part) return `query=${only(asked.query, part.query_only)}`;
    if ("query_except" in part) return `query=${sorted(asked.query, part.query_except)}`;
    if ("header" in part) return `header:${part.header}=${header(part.header)}`;
    return `cookie:${part.cookie}=${escaped(cookie(asked.headers, part.cookie) ?? "")}`;
  };
  const varied = rule.vary.map(({ header, values }) =>
    `vary:${header}=${normalised(asked.headers.get(header) ?? "", values)}`);
  return [...rule.key.map(part), ...varied].join(" ");
}

/** Path and query as they are in the key: what is shared is fetched by that and nothing else. */
export function targetOf(rule: CacheRule, { path, query }: Asked): string {
  const kept = rule.key.flatMap((part) => part === "query" ? [sorted(query)]
    : typeof part !== "object" ? []
    : "query_only" in part ? [only(query, part.query_only)]
    : "query_except" in part ? [sorted(query, part.query_except)] : []).join("");
  return kept === "" ? path : `${path}?${kept}`;
}

export interface Plan {
  limits: [RateLimit, string][];
  guard: EdgeAuth | undefined;
  rule: Rule | undefined;
  /** Why it is not looked up; undefined where it is. */
  bypass: string | undefined;
  route: EdgeRoute;
}

export function plan(form: Form, asked: Asked): Plan {
  const rule = form.rules.find(({ rule }) => !refines(rule) && matches(rule, asked));
  return {
    limits: form.limits.filter((limit) => holds(limit.when, asked)).map((limit) => [limit, bucket(limit, asked)]),
    guard: form.auth.find((auth) =>
      holds(auth.when, asked) && !auth.except.some((open) => asked.path.startsWith(open))),
    rule,
    bypass: bypass(rule?.rule, asked),
    route: form.routes.find((route) => holds(route.when, asked))!,
  };
}

function bucket(limit: RateLimit, asked: Asked): string {
  if (limit.key === "client") return network(asked.client);
  if (limit.key === "country") return asked.country ?? "XX";
  if (limit.key === "everyone") return "everyone";
  return asked.headers.get(limit.key.header) ?? "";
}

function bypass(rule: CacheRule | undefined, asked: Asked): string | undefined {
  if (!reads(asked.method)) return "method";
  if (asked.headers.has("upgrade")) return "upgrade";
  if (!rule) return "no-rule";
  if (rule.bypass || rule.edge_ttl_seconds === 0) return "rule";
  if (asked.headers.has("authorization")) return "authorization";
  if (asked.headers.has("range")) return "range";
  return undefined;
}

/** The regions for a request, best first, without those to be passed over; all of them where all are. */
export function regions(form: Form, route: EdgeRoute, country: string | null, over: (region: string) => boolean): string[] {
  const at = country === null ? undefined : form.ranking.countries[country];
  const order = route.regions.length > 0
    ? route.regions
    : (at === undefined ? undefined : form.ranking.orders[at]) ?? form.ranking.default;
  const up = order.filter((region) => !over(region));
  return up.length > 0 ? up : order;
}
