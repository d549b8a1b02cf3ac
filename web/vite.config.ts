/** How the page is built: `node_modules/.bin/vite build web`, into the ignored folder web/dist. */
import { readdir, readFile, writeFile } from "node:fs/promises";
import { brotliCompressSync, gzipSync } from "node:zlib";

import { defineConfig, type Plugin } from "vite";

/**
 * The `openai` client imports every resource of the API; a page needs two of them. The others become empty classes,
 * which makes the bundle some 50 KB (gzipped) smaller. A resource that the code does use must be listed here.
 */
const USED = /resources\/(.*\/)?(index|responses|input-items|input-tokens|models)\.m?js$/;

function onlyUsedResources(): Plugin {
  return {
    name: "only-used-openai-resources",
    enforce: "pre",
    transform(code, id) {
      const isUnused = /node_modules\/openai\/resources\//.test(id) && !USED.test(id);
      if (!isUnused) return null;
      const names = [...code.matchAll(/^export (?:class|const|let|function|async function) (\w+)/gm)].map((found) => found[1]);
      const listed = [...code.matchAll(/^export \{([^}]*)\}/gm)].flatMap((found) =>
        (found[1] ?? "").split(",").map((name) => name.trim().split(/\s+as\s+/).at(-1) ?? ""),
      );
      const all = [...new Set([...names, ...listed])].filter((name) => name && name !== "default");
      return { code: all.map((name) => `export class ${name} {}`).join("\n"), map: null };
    },
  };
}

/** Each text file also as .br and .gz, so that serving compressed costs nothing. */
function compressed(): Plugin {
  return {
    name: "compressed",
    apply: "build",
    async closeBundle() {
      const folder = new URL("dist/", import.meta.url);
      for (const name of await readdir(folder, { recursive: true })) {
        if (!/\.(js|css|html|svg)$/.test(name)) continue;
        const source = await readFile(new URL(name, folder));
        await writeFile(new URL(`${name}.br`, folder), brotliCompressSync(source));
        await writeFile(new URL(`${name}.gz`, folder), gzipSync(source, { level: 9 }));
      }
    },
  };
}

export default defineConfig({
  plugins: [onlyUsedResources(), compressed()],
  build: {
    target: "es2022",
    cssTarget: ["chrome123", "firefox120", "safari17.5"], // the first with light-dark()
    outDir: "dist",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 700,
    rolldownOptions: {
      onwarn(warning, warn) {
        if (warning.code !== "MODULE_LEVEL_DIRECTIVE") warn(warning); // "use client" in libraries: all of this is
      },
    },
  },
  server: { proxy: { "/v1": "http://127.0.0.1:7071" } },
});
