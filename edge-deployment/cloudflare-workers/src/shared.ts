// This isolate's copy of what all locations share, at most a second old while requests come.

import type { Kept } from "./answer.ts";
import type { Env } from "./env.ts";
import type { Known } from "./objects.ts";

const FRESH_MS = 1_000;

let copy: Known | undefined;
let readAt = 0;
let reading = false;

const object = (env: Env) => env.SHARED.get(env.SHARED.idFromName("shared"));

async function reload(env: Env): Promise<Known> {
  reading = true;
  try {
    return adopt(await object(env).known());
  } finally {
    reading = false;
  }
}

function adopt(known: Known): Known {
  copy = { purges: known.purges.map((purge) => ({ ...purge })), down: [...known.down] };
  readAt = Date.now();
  return copy;
}

/** The copy; refreshed behind the request's back where it is old. */
export async function known(env: Env, ctx: ExecutionContext): Promise<Known> {
  if (!copy) return reload(env);
  if (!reading && Date.now() - readAt > FRESH_MS) ctx.waitUntil(reload(env));
  return copy;
}

export async function purge(env: Env, tags: string[], soft: boolean, at: number): Promise<void> {
  adopt(await object(env).purge(tags, soft, at));
}

export async function setDown(env: Env, down: string[]): Promise<void> {
  adopt(await object(env).setDown(down));
}

/** When an answer stored at `at` counts as stored, after all purges: undefined where it is gone. */
export function since(known: Known, kept: Kept, at: number): number | undefined {
  let since = at;
  for (const purge of known.purges) {
    if (purge.at < at || (purge.tag !== "*" && !kept.tags.includes(purge.tag))) continue;
    if (!purge.soft) return undefined;
    since = Math.min(since, purge.at - kept.ttl * 1000);
  }
  return since;
}
