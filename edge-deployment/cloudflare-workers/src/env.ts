// What a deployment binds to the worker.

import type { Bucket, Shared } from "./objects.ts";

export interface Env {
  /** Exact rate limits: one object a bucket. */
  BUCKETS: DurableObjectNamespace<Bucket>;
  /** What all locations share: purges, and regions that are down. */
  SHARED: DurableObjectNamespace<Shared>;
  /** Lets in who may purge, report regions, and read metrics. */
  OPERATOR_TOKEN?: string;
  /** For tests: answers say how they came about, and requests say what time it is. */
  OBSERVE?: string;
  JWKS_COOLDOWN_MS?: string;
  /** Which version of the worker this is, so that who deploys can tell. */
  VERSION?: WorkerVersionMetadata;
  METRICS?: AnalyticsEngineDataset;
  /** `LIMIT_NAME` for coarse limits, `SECRET_NAME` for signed URLs. */
  [binding: string]: unknown;
}
