/**
 * Builds the page and the client into ../signaling/static, from where the server sends them and the wheel carries them.
 *
 *   node build.mjs            writes the build
 *   node build.mjs --verify   builds in memory and fails unless the committed files are the same, byte by byte
 *
 * The result depends on the sources and on the locked esbuild alone: no times, no paths of this machine.
 * build.json records a digest of the sources, so that a checkout without Node can tell a stale build too
 * (tests/unit/test_page_is_built.py computes it again; keep the two the same).
 */

import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const WEB = dirname(fileURLToPath(import.meta.url));
const STATIC = join(WEB, "..", "signaling", "static");
/** Folders that hold no source of the build, at any depth. */
const NOT_SOURCES = new Set(["node_modules", "dist", "test"]);
const CLIENT = "@voiceforge/client";

const COMMON = {
  absWorkingDir: WEB,
  bundle: true,
  charset: "utf8",
  format: "esm",
  legalComments: "none",
  logLevel: "warning",
  minify: true,
  target: ["chrome100", "firefox102", "safari15.4"],
  write: false,
};

const digestOf = (bytes) => createHash("sha256").update(bytes).digest("hex");

/** Enough of a digest to tell two builds apart in a cache. */
const tag = (bytes) => digestOf(bytes).slice(0, 12);

async function sourcePaths(folder = WEB) {
  const entries = await readdir(folder, { withFileTypes: true });
  const found = await Promise.all(
    entries.map((entry) => {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) return NOT_SOURCES.has(entry.name) ? [] : sourcePaths(path);
      return [relative(WEB, path).split(sep).join("/")];
    }),
  );
  return found.flat();
}

/** SHA-256 over one line a file, `<digest>  <path>\n`, in the order of the paths' UTF-8 bytes. */
async function sourcesDigest() {
  const paths = (await sourcePaths()).sort((one, other) => Buffer.compare(Buffer.from(one), Buffer.from(other)));
  const lines = await Promise.all(paths.map(async (path) => `${digestOf(await readFile(join(WEB, path)))}  ${path}\n`));
  return digestOf(lines.join(""));
}

async function bundle(options) {
  const { outputFiles } = await build({ ...COMMON, ...options });
  return outputFiles[0].contents;
}

/** The page imports the client as the file that others import too, not as a copy of its own. */
const clientAsFile = (url) => ({
  name: "client-as-file",
  setup({ onResolve }) {
    onResolve({ filter: new RegExp(`^${CLIENT}$`) }, () => ({ path: url, external: true }));
  },
});

async function files() {
  const client = await bundle({ entryPoints: ["sdk/src/index.ts"] });
  const worklet = await bundle({ entryPoints: ["sdk/src/worklet.ts"] });
  const page = await bundle({
    entryPoints: ["playground/src/main.ts"],
    plugins: [clientAsFile(`./voiceforge.js?v=${tag(client)}`)],
  });
  const style = await bundle({ entryPoints: ["playground/style.css"] });
  const icon = await readFile(join(WEB, "playground", "icon.svg"));
  const stamps = { "voiceforge.js": client, "page.js": page, "style.css": style, "icon.svg": icon };
  // The client asks for it by its plain name, beside itself, wherever that is.
  const plain = { "voiceforge-worklet.js": worklet };
  let html = await readFile(join(WEB, "playground", "index.html"), "utf8");
  for (const [name, bytes] of Object.entries(stamps)) html = html.replaceAll(`static/${name}"`, `static/${name}?v=${tag(bytes)}"`);
  const made = { ...stamps, ...plain, "index.html": Buffer.from(html) };
  const record = {
    sources_sha256: await sourcesDigest(),
    files_sha256: Object.fromEntries(Object.keys(made).sort().map((name) => [name, digestOf(made[name])])),
  };
  return { ...made, "build.json": Buffer.from(`${JSON.stringify(record, null, 2)}\n`) };
}

const made = await files();
if (process.argv.includes("--verify")) {
  const stale = [];
  for (const [name, bytes] of Object.entries(made)) {
    const committed = await readFile(join(STATIC, name)).catch(() => null);
    if (committed === null || !committed.equals(bytes)) stale.push(name);
  }
  if (stale.length > 0) {
    console.error(`signaling/static is not the build of these sources: ${stale.join(", ")}. Run: npm run build`);
    process.exit(1);
  }
  console.log(`signaling/static is the build of these sources (${Object.keys(made).length} files).`);
} else {
  await mkdir(STATIC, { recursive: true });
  for (const [name, bytes] of Object.entries(made)) {
    await writeFile(join(STATIC, name), bytes);
    console.log(`${name.padEnd(21)} ${String(bytes.length).padStart(7)} bytes`);
  }
}
