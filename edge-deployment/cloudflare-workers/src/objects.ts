// The durable objects: what must be counted or known once for all locations.

import { DurableObject } from "cloudflare:workers";

export interface Taken { passes: boolean; left: number; retryAfter: number }

/** A token bucket (GCRA): when it will be full again. Written down before it answers, so that no restart fills it. */
export class Bucket extends DurableObject {
  async take(rate: number, perSeconds: number, burst: number, now: number): Promise<Taken> {
    const cost = (perSeconds * 1000) / rate;
    const room = cost * burst;
    const busy = Math.max((await this.ctx.storage.get<number>("busy")) ?? 0, now);
    // A thousandth of a millisecond forgives what floating point loses.
    const passes = busy + cost <= now + room + 0.001;
    const used = (passes ? busy + cost : busy) - now;
    if (passes) {
      await this.ctx.storage.put("busy", busy + cost);
      // A bucket that is full again is like one that never was.
      await this.ctx.storage.setAlarm(Date.now() + Math.ceil(room) + 60_000);
    }
    const wait = Math.max(0, used + cost - room - 0.001);
    return { passes, left: Math.max(0, Math.floor((room - used + 0.001) / cost)), retryAfter: Math.ceil(wait / 1000) };
  }

  override async alarm(): Promise<void> {
    await this.ctx.storage.deleteAll();
  }
}

export interface Purge { tag: string; at: number; soft: boolean }
export interface Known { purges: Purge[]; down: string[] }

const MOST_PURGES = 1000;

/** What all locations share. One object. */
export class Shared extends DurableObject {
  async known(): Promise<Known> {
    return (await this.ctx.storage.get<Known>("known")) ?? { purges: [], down: [] };
  }

  async purge(tags: string[], soft: boolean, at: number): Promise<Known> {
    const known = await this.known();
    const kept = known.purges.filter((purge) => !tags.includes(purge.tag) || (!purge.soft && soft));
    const purges = [...kept, ...tags.map((tag) => ({ tag, at, soft }))];
    // Too many to remember: everything that is older than the newest one forgotten goes.
    const forgotten = purges.splice(0, Math.max(0, purges.length - MOST_PURGES + 1));
    if (forgotten.length > 0) purges.unshift({ tag: "*", at: Math.max(...forgotten.map((purge) => purge.at)), soft: false });
    await this.ctx.storage.put<Known>("known", { ...known, purges });
    return { ...known, purges };
  }

  async setDown(down: string[]): Promise<Known> {
    const known = { ...(await this.known()), down };
    await this.ctx.storage.put<Known>("known", known);
    return known;
  }
}
