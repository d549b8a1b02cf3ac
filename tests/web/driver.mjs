/**
 * One Chromium for a whole test file. Reads `{"run": name, …}` lines, plays that scenario in a fresh context, and answers
 * `{"done": true}` or `{"error": …}`; `{"ask": …}` asks the test for what only it can do, such as killing the server.
 */

import { createInterface } from "node:readline";

import { chromium } from "playwright-core";

import { scenarios } from "./scenarios.mjs";

const ARGUMENTS = [
  "--headless=new",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
export const PATIENCE = 30_000;

const browser = await chromium.launch({ executablePath: process.argv[2], args: ARGUMENTS });
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const tell = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);
const next = async () => JSON.parse((await lines.next()).value ?? '{"end": true}');

async function ask(what) {
  tell({ ask: what });
  return next();
}

/** A context that reports whatever no scenario may cause: policy violations, errors, requests to elsewhere. */
async function watchedContext({ base, key }, options, complaints) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, locale: "en-US", ...options });
  context.setDefaultTimeout(PATIENCE);
  await context.exposeBinding("reportViolation", (_, text) => complaints.push(`policy: ${text}`));
  await context.addInitScript((savedKey) => {
    if (savedKey && location.protocol.startsWith("http")) localStorage.setItem("companion.key", savedKey);
    addEventListener("securitypolicyviolation", (event) =>
      window.reportViolation(`${event.effectiveDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`),
    );
  }, key ?? null);
  context.on("weberror", (error) => complaints.push(`error: ${error.error().stack}`));
  context.on("console", (message) => {
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) {
      complaints.push(`console: ${message.text()}`);
    }
  });
  context.on("request", (request) => {
    if (!request.url().startsWith(base) && !/^(data|blob):/.test(request.url())) complaints.push(`request: ${request.url()}`);
  });
  return context;
}

async function play(order) {
  const complaints = [];
  const contexts = [];
  const open = async (options = {}) => {
    const context = await watchedContext(order, options, complaints);
    contexts.push(context);
    return context;
  };
  try {
    const facts = await scenarios[order.run]({ ...order, open, ask });
    if (complaints.length) throw new Error(complaints.join("\n"));
    return { done: true, facts: facts ?? null };
  } catch (error) {
    const page = contexts.at(-1)?.pages().at(-1);
    const seen = await page?.locator("body").innerText({ timeout: 2000 }).catch(() => "");
    return { error: [error.stack, ...complaints, `the page shows:\n${(seen ?? "").slice(-1500)}`].join("\n") };
  } finally {
    await Promise.all(contexts.map((context) => context.close()));
  }
}

tell({ ready: browser.version() });
for (let order = await next(); !order.end; order = await next()) tell(await play(order));
await browser.close();
