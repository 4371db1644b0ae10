// The way to the regions: in order, with a limit on attempts and time, past those that failed of late.

import type { EdgeRoute, Form } from "./form.ts";

interface Breaker { failures: number; until: number }

/** What this isolate saw of each region. */
const breakers = new Map<string, Breaker>();

export const passedOver = (region: string, now: number) => (breakers.get(region)?.until ?? 0) > now;

export const isIdempotent = (method: string) => ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"].includes(method);

/** Whether an answer is an error in the sense of RFC 5861, section 4. */
export const isFailure = (status: number) => status === 500 || isUnwell(status);
const isUnwell = (status: number) => status >= 502 && status <= 504;

function note(region: string, route: EdgeRoute, failed: boolean, now: number): void {
  const failures = failed ? (breakers.get(region)?.failures ?? 0) + 1 : 0;
  const open = failures >= route.break_after;
  breakers.set(region, { failures: open ? 0 : failures, until: open ? now + route.break_seconds * 1000 : 0 });
}

/** The answer of the first region that is well; else the last answer there was; else undefined. */
export async function ask(
  form: Form, route: EdgeRoute, regions: string[], target: string, init: RequestInit & { method: string }, now: number,
): Promise<{ region: string; response: Response } | undefined> {
  const attempts = isIdempotent(init.method) ? route.attempts : 1;
  let last: { region: string; response: Response } | undefined;
  for (const region of regions.slice(0, attempts)) {
    try {
      const response = await fetch(`${form.origins[region]}${target}`, {
        ...init, redirect: "manual", signal: AbortSignal.timeout(route.timeout_ms),
      });
      note(region, route, isUnwell(response.status), now);
      await last?.response.body?.cancel();
      last = { region, response };
      if (!isUnwell(response.status)) return last;
    } catch (error) {
      console.warn(JSON.stringify({ message: "a region did not answer", region, error: String(error) }));
      note(region, route, true, now);
    }
  }
  return last;
}
