/** Builds the tests with the compiler of the page and runs them with Node's own runner. */

import { spawnSync } from "node:child_process";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const TESTS = join(dirname(fileURLToPath(import.meta.url)), "sdk", "test");
const outdir = await mkdtemp(join(tmpdir(), "voiceforge-web-"));
try {
  const names = (await readdir(TESTS)).filter((name) => name.endsWith(".test.ts")).sort();
  await build({
    entryPoints: names.map((name) => join(TESTS, name)),
    outdir,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    format: "esm",
    platform: "node",
    sourcemap: "inline",
    logLevel: "warning",
  });
  const built = names.map((name) => join(outdir, name.replace(/\.ts$/, ".mjs")));
  const { status } = spawnSync(process.execPath, ["--enable-source-maps", "--test", ...built], { stdio: "inherit" });
  process.exitCode = status ?? 1;
} finally {
  await rm(outdir, { recursive: true, force: true });
}
