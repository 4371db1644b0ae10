// Runs every test on a worker that counts which of its lines ran, inside workerd; fails below 95% of lines.

import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";
import coverage from "istanbul-lib-coverage";
import { options } from "../build.mjs";
import { COVERAGE, counting } from "./counting.mjs";

const LEAST_PERCENT = 95;

rmSync(COVERAGE, { recursive: true, force: true });
mkdirSync(COVERAGE, { recursive: true });
await build({ ...options, legalComments: "none" });
await build({ ...options, entryPoints: ["test/counted.ts"], outfile: "dist/counted.js", plugins: [...options.plugins, counting] });

const files = readdirSync(import.meta.dirname).filter((file) => file.endsWith(".test.mjs"));
const wanted = process.argv.slice(2);
const chosen = files.filter((file) => wanted.length === 0 || wanted.some((word) => file.includes(word)));
const paths = chosen.map((file) => join(import.meta.dirname, file));
const ran = spawnSync(process.execPath, ["--test", "--test-concurrency=1", ...paths], { stdio: ["ignore", "inherit", "inherit"] });
if (ran.status !== 0 || wanted.length > 0) process.exit(ran.status ?? 1);

const map = coverage.createCoverageMap({});
for (const file of readdirSync(COVERAGE)) map.merge(JSON.parse(readFileSync(join(COVERAGE, file), "utf8")));
for (const file of map.files()) {
  const { lines } = map.fileCoverageFor(file).toSummary();
  console.log(`${String(lines.pct).padStart(6)}%  ${file}`, map.fileCoverageFor(file).getUncoveredLines().join(" "));
}
const { lines } = map.getCoverageSummary();
console.log(`${lines.pct}% of ${lines.total} lines ran; at least ${LEAST_PERCENT}% must`);
if (map.files().length === 0 || lines.pct < LEAST_PERCENT) process.exit(1);
