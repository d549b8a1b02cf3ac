/** Takes the pictures that tools/screenshots.py asks for. */

import { chromium } from "playwright-core";

const order = JSON.parse(process.argv[2]);
const [savings, bern] = order.questions;
const WIDE = { viewport: { width: 1280, height: 960 } };
const PHONE = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true, deviceScaleFactor: 1.5 };

const browser = await chromium.launch({
  executablePath: order.browser,
  args: ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars"],
});

async function api(path, body) {
  const init = { method: body ? "POST" : "GET", headers: { "content-type": "application/json" } };
  const response = await fetch(`${order.base}/v1${path}`, body ? { ...init, body: JSON.stringify(body) } : init);
  return response.json();
}

async function open(options, path = "/") {
  const context = await browser.newContext({ locale: "en-US", ...options });
  const page = await context.newPage();
  await page.goto(order.base + path);
  await page.locator(".composer").waitFor();
  return page;
}

async function ask(page, text) {
  const box = page.getByRole("textbox", { name: "Message Companion" });
  await box.fill(text);
  await page.getByRole("button", { name: "Send" }).click();
}

async function answered(page, status = "completed") {
  await page.waitForFunction((wanted) => [...document.querySelectorAll(".answer")].at(-1)?.dataset.status === wanted, status);
  await page.waitForLoadState("networkidle");
}

async function shoot(page, name, { isReadme = false } = {}) {
  if (!order.all && !isReadme) return;
  await page.evaluate(() => document.fonts.ready);
  await page.mouse.move(0, 0);
  await page.screenshot({ path: `${order.out}/${name}.png`, animations: "disabled", caret: "hide" });
  console.log(`${name}.png`);
}

const conversations = [];
for (const title of order.others) {
  const made = await api("/conversations", { items: [{ type: "message", role: "user", content: title }] });
  conversations.push(await api(`/conversations/${made.id}`, { title }));
}
await api(`/conversations/${conversations.at(-1).id}`, { pinned: true });

const light = await open({ ...WIDE, colorScheme: "light" });
await shoot(light, "welcome-light");
await ask(light, bern);
await answered(light);
await light.getByRole("button", { name: "New chat" }).first().click();
await light.getByRole("heading", { name: "What can I do for you?" }).waitFor();
await ask(light, savings);
await answered(light);
await light.locator(".katex-display").first().waitFor();
await light.locator(".hljs-keyword").first().waitFor();
await light.locator(".running-dot").waitFor({ state: "detached" });
await light.getByRole("link", { name: "Compound interest" }).waitFor();
await shoot(light, "page", { isReadme: true });
const path = new URL(light.url()).pathname;

const phone = await open({ ...PHONE, colorScheme: "dark" });
await ask(phone, bern);
await phone.getByText("Evening", { exact: true }).waitFor();
await answered(phone);
await shoot(phone, "phone", { isReadme: true });

if (order.all) {
  await light.locator(".entry").nth(2).hover();
  await light.getByRole("button", { name: /^More for/ }).nth(2).click();
  await light.screenshot({ path: `${order.out}/menu-light.png` });
  await light.keyboard.press("Escape");
  await light.getByRole("button", { name: "Settings" }).click();
  await shoot(light, "settings-light");
  await light.keyboard.press("Escape");

  const dark = await open({ ...WIDE, colorScheme: "dark" }, path);
  await dark.locator(".katex-display").first().waitFor();
  await dark.locator(".hljs-keyword").first().waitFor();
  await shoot(dark, "page-dark");
  await dark.getByRole("button", { name: "New chat" }).first().click();
  await shoot(dark, "welcome-dark");

  const offline = await open({ ...WIDE, colorScheme: "light" });
  await ask(offline, bern);
  await answered(offline);
  await offline.locator(".question").hover();
  await offline.getByRole("button", { name: "Edit" }).click();
  await shoot(offline, "editing-light");
  await offline.keyboard.press("Escape");
  await offline.getByRole("button", { name: "Answer again" }).click();
  await offline.getByText("2/2").waitFor();
  await answered(offline);
  await shoot(offline, "versions-light");
  const pixels = Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="80" height="80"><rect width="80" height="80" fill="#e8a"/></svg>');
  const chooser = offline.waitForEvent("filechooser");
  await offline.getByRole("button", { name: "Attach images or files" }).click();
  await (await chooser).setFiles([
    { name: "timetable-of-the-whole-week-in-bern.pdf", mimeType: "application/pdf", buffer: pixels },
    { name: "photo.png", mimeType: "image/png", buffer: await offline.screenshot() },
  ]);
  await offline.getByText("photo.png").waitFor();
  await offline.context().setOffline(true);
  await offline.getByText("You are offline.").waitFor();
  await shoot(offline, "offline-light");
  await ask(offline, "Is this on the way?");
  await offline.getByText("Waiting for the connection").waitFor();
  await shoot(offline, "waiting-light");
  await offline.context().setOffline(false);
  await answered(offline);
  await shoot(offline, "attached-light");

  const running = await open({ ...WIDE, colorScheme: "dark" });
  await running.route("**/v1/responses", async (route) => route.continue());
  await ask(running, savings);
  await running.locator(".answer table td").first().waitFor();
  await shoot(running, "streaming-dark");
  await answered(running);

  await phone.getByRole("button", { name: "Show conversations" }).tap();
  await phone.waitForTimeout(400);
  await shoot(phone, "phone-list-dark");
  const phoneLight = await open({ ...PHONE, colorScheme: "light" });
  await shoot(phoneLight, "phone-welcome-light");
  await phoneLight.goto(order.base + path);
  await phoneLight.locator(".katex-display").first().waitFor();
  await shoot(phoneLight, "phone-page-light");
}
await browser.close();
