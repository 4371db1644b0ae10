// Rewrites the worker's sources so that each line counts how often it ran (istanbul).

import { readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { transformSync } from "esbuild";
import { createInstrumenter } from "istanbul-lib-instrument";

export const COVERAGE = join(import.meta.dirname, "../dist/coverage");

export const counting = {
  name: "counting",
  setup(build) {
    build.onLoad({ filter: /\/src\/[a-z]+\.ts$/ }, ({ path }) => {
      const { code } = transformSync(readFileSync(path, "utf8"), { loader: "ts", target: "es2022", format: "esm" });
      const instrumenter = createInstrumenter({ esModules: true, coverageVariable: "__coverage__" });
      return { contents: instrumenter.instrumentSync(code, basename(path)), loader: "js" };
    });
  },
};
