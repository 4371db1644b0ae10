// Whether a request shows what its guard asks for.

import { createRemoteJWKSet, errors, jwtVerify } from "jose";
import type { EdgeAuth } from "./form.ts";
import type { Asked } from "./plan.ts";
import type { Env } from "./env.ts";
import { parameter } from "./text.ts";

const LEEWAY_SECONDS = 30;
const LONGEST_TOKEN = 8192;
const MOST_SETS = 16;

/** The keys of issuers. jose fetches them anew when a token names one that it does not know. */
const sets = new Map<string, ReturnType<typeof createRemoteJWKSet>>();

function keysAt(url: string, env: Env): ReturnType<typeof createRemoteJWKSet> {
  const known = sets.get(url);
  if (known) return known;
  if (sets.size >= MOST_SETS) sets.clear();
  const set = createRemoteJWKSet(new URL(url), {
    cooldownDuration: Number(env.JWKS_COOLDOWN_MS ?? 30_000),
    cacheMaxAge: 600_000,
    timeoutDuration: 3_000,
  });
  sets.set(url, set);
  return set;
}

export type Refusal = { status: 401 | 403; why: "missing" | "invalid" | "expired" };

/** Undefined where the request may pass. */
export async function verify(auth: EdgeAuth, asked: Asked, env: Env, now: number): Promise<Refusal | undefined> {
  if ("signed_url" in auth.proof) return verifyUrl(auth.proof.signed_url, asked, env, now);
  const token = /^bearer ([\w-]+\.[\w-]+\.[\w-]+)$/i.exec(asked.headers.get("authorization") ?? "")?.[1];
  if (token === undefined || token.length > LONGEST_TOKEN) return { status: 401, why: "missing" };
  const { issuers, audiences, algorithms, jwks } = auth.proof.token;
  try {
    await jwtVerify(token, keysAt(jwks, env), {
      issuer: issuers,
      audience: audiences,
      algorithms,
      clockTolerance: LEEWAY_SECONDS,
      currentDate: new Date(now),
      requiredClaims: ["exp", "iss", "aud"],
    });
    return undefined;
  } catch (error) {
    return { status: 401, why: error instanceof errors.JWTExpired ? "expired" : "invalid" };
  }
}

async function verifyUrl(
  { secret, signature, expires }: { secret: string; signature: string; expires: string },
  asked: Asked, env: Env, now: number,
): Promise<Refusal | undefined> {
  const given = parameter(asked.query, signature);
  const until = parameter(asked.query, expires);
  if (!given || !until) return { status: 403, why: "missing" };
  const known = env[`SECRET_${secret}`];
  if (typeof known !== "string" || !/^[0-9a-f]{64}$/i.test(given)) return { status: 403, why: "invalid" };
  const text = new TextEncoder();
  const key = await crypto.subtle.importKey("raw", text.encode(known), { name: "HMAC", hash: "SHA-256" }, false, ["verify"]);
  const bytes = Uint8Array.from(given.match(/../g)!, (pair) => parseInt(pair, 16));
  const good = await crypto.subtle.verify("HMAC", key, bytes, text.encode(`${asked.path}?${expires}=${until}`));
  if (!good || !/^\d+$/.test(until)) return { status: 403, why: "invalid" };
  return now / 1000 < Number(until) ? undefined : { status: 403, why: "expired" };
}
