// How often each rule led to what, in this isolate, and in the analytics that a deployment binds.

import type { Env } from "./env.ts";

const counts = new Map<string, number>();
const MOST_SERIES = 2000;

export function count(env: Env, rule: string, came: string, status: number): void {
  const series = `repomind_edge_requests_total{rule="${rule}",came="${came}",status="${status}"}`;
  if (counts.has(series) || counts.size < MOST_SERIES) counts.set(series, (counts.get(series) ?? 0) + 1);
  env.METRICS?.writeDataPoint({ indexes: [rule], blobs: [came, String(status)], doubles: [1] });
}

/** In the text form of Prometheus. */
export function metrics(): string {
  return [...counts].map(([series, value]) => `${series} ${value}\n`).sort().join("");
}
