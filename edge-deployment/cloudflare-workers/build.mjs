// Bundles the worker to dist/worker.js. The policy stays a module of its own beside it (policy.js), so that a version
// of the worker is pinned to one policy and another policy is another version.

import { build } from "esbuild";

export const options = {
  bundle: true,
  format: "esm",
  target: "es2022",
  entryPoints: ["src/worker.ts"],
  outfile: "dist/worker.js",
  external: ["cloudflare:workers"],
  absWorkingDir: import.meta.dirname,
  logLevel: "warning",
  plugins: [{
    name: "policy-stays-outside",
    setup(build) {
      build.onResolve({ filter: /\/policy\.js$/ }, () => ({ path: "./policy.js", external: true }));
    },
  }],
};

if (process.argv[1] === import.meta.filename) await build({ ...options, legalComments: "none" });
