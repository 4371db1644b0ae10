// Whether an answer is stored, for how long, and under which tags; and how fresh what was stored still is.

import type { CacheRule, Form, Rule } from "./form.ts";
import { type Asked, deciding } from "./plan.ts";
import { directive, words } from "./text.ts";

export interface Kept {
  rule: string;
  revision: string;
  ttl: number;
  swr: number;
  sie: number;
  tags: string[];
}

const MOST_TAGS = 64;

/** What is to be stored of an answer, or the word for why nothing is. */
export function keep(form: Form, keyRule: Rule, asked: Asked, status: number, headers: Headers, now: number): Kept | string {
  const rule = deciding(form, asked, status, headers.get("content-type") ?? "")?.rule;
  if (!rule) return "no-rule";
  if (headers.has("set-cookie")) return "set-cookie";
  const ttl = lifetime(headers, rule.edge_ttl_seconds);
  if (ttl <= 0) return "origin";
  if (!variesByKey(keyRule.rule, headers)) return "vary";
  if (!mayLie(form, rule.class, headers, now)) return "residency";
  const control = `${headers.get("cdn-cache-control") ?? ""},${headers.get("cache-control") ?? ""}`;
  const strict = ["must-revalidate", "proxy-revalidate"].some((word) => directive(control, word) !== undefined);
  const own = (headers.get("cache-tag") ?? "").split(",").map((tag) => tag.trim());
  const tags = [`rule:${rule.name}`, ...rule.tags, ...own].filter((tag) => tag !== "" && !/\s/.test(tag));
  return {
    rule: rule.name,
    revision: keyRule.revision,
    ttl,
    swr: strict ? 0 : rule.stale_while_revalidate_seconds,
    sie: strict ? 0 : rule.stale_if_error_seconds,
    tags: [...tags.slice(0, MOST_TAGS), `url:${asked.host}${asked.path}`],
  };
}

/** What the rule says, or less where the origin says less (RFC 9213, RFC 9111); 0 for never. */
function lifetime(headers: Headers, most: number): number {
  const cdn = headers.get("cdn-cache-control");
  const control = cdn ?? headers.get("cache-control") ?? "";
  if (["no-store", "private", "no-cache"].some((word) => directive(control, word) !== undefined)) return 0;
  const shared = cdn === null ? directive(control, "s-maxage") : undefined;
  // What says no number may be meant to say that it is old already (RFC 9111, section 4.2.1).
  const given = shared === undefined ? directive(control, "max-age") : shared;
  if (given === null) return 0;
  const age = (headers.get("age") ?? "0").trim();
  return Math.min(given ?? most, most) - (/^\d+$/.test(age) ? Number(age) : 0);
}

function variesByKey(rule: CacheRule, headers: Headers): boolean {
  const covered = (name: string) => name === "accept-encoding"
    || rule.vary.some((vary) => vary.header === name)
    || rule.key.some((part) => typeof part === "object" && "header" in part && part.header === name);
  return words(headers.get("vary")).every(covered);
}

/** Whether the data in an answer may lie in every country at once: that is where this network keeps it. */
function mayLie(form: Form, ruleClass: string, headers: Headers, now: number): boolean {
  const classes = headers.has("repomind-class") ? words(headers.get("repomind-class")) : [ruleClass];
  const countries = words(headers.get("repomind-jurisdiction")).map((country) => country.toUpperCase());
  const laws = countries.map((country) =>
    Object.entries(form.residency.laws).find(([, all]) => all.includes(country))?.[0]
      ?? (/^[A-Z]{2}$/.test(country) ? "other" : "unknown"));
  if (laws.length === 0) laws.push("none");
  const everywhere = Object.keys(form.origins);
  const holds = (kind: string, law: string) => {
    const holding = form.residency.holdings.find((holding) => holding.class === kind && holding.laws.includes(law));
    return holding !== undefined && ABOUT_NOBODY.includes(kind) && holding.duties.length === 0
      && (holding.until === null || now < holding.until)
      && everywhere.every((region) => holding.regions.includes(region));
  };
  return classes.length > 0 && classes.every((kind) => laws.every((law) => holds(kind, law)));
}

/** Classes that are about no person; the others are bound to regions, and this network has none. */
const ABOUT_NOBODY = ["public", "operational", "source-code", "credentials"];

export type Freshness = "fresh" | "revalidate" | "if-error" | "gone";

export function freshness(kept: Kept, ageMs: number): Freshness {
  const within = (more: number) => ageMs < (kept.ttl + more) * 1000;
  return within(0) ? "fresh" : within(kept.swr) ? "revalidate" : within(kept.sie) ? "if-error" : "gone";
}

/** What the browser is told, where the origin says nothing about caching. */
export function browserControl(form: Form, asked: Asked, status: number, headers: Headers): string | undefined {
  if (headers.has("cache-control")) return undefined;
  const rule = deciding(form, asked, status, headers.get("content-type") ?? "")?.rule;
  if (!rule) return undefined;
  if (rule.browser_ttl_seconds === 0) return "no-cache";
  const own = asked.headers.has("authorization") || headers.has("set-cookie");
  return `${own ? "private, " : ""}max-age=${rule.browser_ttl_seconds}`;
}
