// How a worker with a policy is run by miniflare: the bindings that `repomind-run edge build` asks a deployment for.

const limitBinding = ({ name }) => `LIMIT_${name.toUpperCase().replace(/[^A-Z0-9]/g, "_")}`;

/** Options for Miniflare; `script` is the bundled worker, which imports its policy from `./policy.js`. */
export function configuration(policy, script, bindings = {}) {
  const coarse = policy.limits.filter((limit) => limit.scope === "coarse");
  return {
    cf: false,
    compatibilityDate: "2026-04-01",
    modulesRoot: "/worker",
    modules: [
      { type: "ESModule", path: "/worker/worker.js", contents: script },
      { type: "ESModule", path: "/worker/policy.js", contents: `export default ${JSON.stringify(policy)};` },
    ],
    durableObjects: {
      BUCKETS: { className: "Bucket", useSQLite: true },
      SHARED: { className: "Shared", useSQLite: true },
    },
    ratelimits: Object.fromEntries(coarse.map((limit) =>
      [limitBinding(limit), { simple: { limit: limit.rate, period: limit.per_seconds } }])),
    bindings,
  };
}
