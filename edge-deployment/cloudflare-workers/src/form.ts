// The policy module, as `repomind-run edge build` writes it. ../edge-form.schema.json describes it in full.

export interface Named { name: string; value: string | null }

export interface RequestMatch {
  paths: string[];
  suffixes: string[];
  methods: string[];
  headers: Named[];
  cookies: Named[];
}

export type KeyPart =
  | "host" | "path" | "query" | "country"
  | { query_only: string[] } | { query_except: string[] } | { header: string } | { cookie: string };

export interface CacheRule {
  name: string;
  when: RequestMatch;
  statuses: number[];
  content_types: string[];
  bypass: boolean;
  edge_ttl_seconds: number;
  browser_ttl_seconds: number;
  stale_while_revalidate_seconds: number;
  stale_if_error_seconds: number;
  key: KeyPart[];
  vary: { header: string; values: string[] }[];
  tags: string[];
  class: string;
}

export interface Rule { rule: CacheRule; revision: string }

export interface RateLimit {
  name: string;
  when: RequestMatch;
  key: "client" | "country" | "everyone" | { header: string };
  rate: number;
  per_seconds: number;
  burst: number;
  scope: "coarse" | "exact";
}

export type Proof =
  | { token: { issuers: string[]; audiences: string[]; algorithms: string[]; jwks: string } }
  | { signed_url: { secret: string; signature: string; expires: string } };

export interface EdgeAuth {
  name: string;
  when: RequestMatch;
  except: string[];
  proof: Proof;
  origin_may_verify: boolean;
}

export interface EdgeRoute {
  name: string;
  when: RequestMatch;
  regions: string[];
  attempts: number;
  break_after: number;
  break_seconds: number;
  timeout_ms: number;
}

export interface Holding {
  class: string;
  laws: string[];
  regions: string[];
  duties: string[];
  until: number | null;
}

export interface Form {
  version: number;
  revision: string;
  rules: Rule[];
  limits: RateLimit[];
  auth: EdgeAuth[];
  routes: EdgeRoute[];
  ranking: { default: string[]; orders: string[][]; countries: Record<string, number> };
  origins: Record<string, string>;
  residency: { laws: Record<string, string[]>; holdings: Holding[]; region_duties: Record<string, string[]> };
  answer_headers: [string, string][];
}

/** The policy, if this worker can read it. A worker that cannot must not serve at all. */
export function read(policy: unknown): Form {
  const form = policy as Form;
  if (form.version !== 1) throw new Error(`this worker reads policy version 1, not ${form.version}`);
  return form;
}
