// Answers in the Cache API, with what we need to know about each in one header.

import type { Kept } from "./answer.ts";

export interface Stored { kept: Kept; at: number; region: string; status: number; response: Response }

const META = "rm-meta";
/** How long past all its times an answer is kept, so that it can be revalidated with 304. */
const KEEP_SECONDS = 3600;

const address = (key: string) => `https://cache.repomind.invalid/${encodeURIComponent(key)}`;

export async function lookUp(key: string): Promise<Stored | undefined> {
  const response = await caches.default.match(address(key));
  const meta = response?.headers.get(META);
  if (!response || !meta) return undefined;
  return { ...(JSON.parse(meta) as Omit<Stored, "response">), response };
}

export async function forget(key: string): Promise<void> {
  await caches.default.delete(address(key));
}

/** The headers of a stored answer, as the origin sent them. */
export function original(stored: Stored): Headers {
  const headers = new Headers(stored.response.headers);
  headers.delete(META);
  const control = headers.get("rm-cache-control");
  headers.delete("rm-cache-control");
  headers.delete("cache-control");
  // What the cache itself adds.
  headers.delete("cf-cache-status");
  headers.delete("age");
  if (control !== null) headers.set("cache-control", control);
  return headers;
}

export async function store(key: string, entry: Omit<Stored, "response">, headers: Headers, body: BodyInit | null): Promise<void> {
  const kept = new Headers(headers);
  const control = headers.get("cache-control");
  if (control !== null) kept.set("rm-cache-control", control);
  const longest = entry.kept.ttl + Math.max(entry.kept.swr, entry.kept.sie) + KEEP_SECONDS;
  kept.set("cache-control", `public, max-age=${longest}`);
  kept.set("cache-tag", entry.kept.tags.join(","));
  kept.delete("cdn-cache-control");
  kept.delete("expires");
  kept.delete("age");
  // What varies is in the key.
  kept.delete("vary");
  if (headers.has("vary")) kept.set("rm-vary", headers.get("vary")!);
  const { kept: meta, at, region, status } = entry;
  kept.set(META, JSON.stringify({ kept: meta, at, region, status }));
  await caches.default.put(address(key), new Response(body, { status: 200, headers: kept }));
}
