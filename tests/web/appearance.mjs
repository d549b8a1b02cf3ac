/** For everybody: keyboard, screen readers, phones, languages, both colour schemes. */

import { createRequire } from "node:module";

import { assert, Chat, counted, until } from "./helpers.mjs";

const axePath = createRequire(import.meta.url).resolve("axe-core/axe.min.js");

async function keyboardTo(chat, name, limit = 40) {
  for (let presses = 0; presses < limit; presses += 1) {
    await chat.page.keyboard.press("Tab");
    const at = await chat.page.evaluate(() => {
      const element = document.activeElement;
      return element?.getAttribute("aria-label") ?? element?.textContent ?? "";
    });
    if (at.trim().startsWith(name)) return;
  }
  assert.fail(`Tab does not lead to ${name}`);
}

const focused = (chat, name) =>
  until(() => chat.page.evaluate(() => document.activeElement?.getAttribute("aria-label")), (label) => label === name);

export async function keyboard(order) {
  const chat = await Chat.open(order);
  const { keyboard: keys } = chat.page;
  await chat.box.waitFor();
  await until(() => chat.page.evaluate(() => document.activeElement?.id), (id) => id === "composer");
  await keys.type("count to 3");
  await keys.press("Shift+Enter");
  await keys.type("please");
  await keys.press("Enter");
  assert.equal(await chat.answered(), counted(3));

  await chat.page.evaluate(() => document.querySelector("a, button, input, select, textarea").focus());
  assert.equal(await chat.page.evaluate(() => document.activeElement.className), "skip", "the first stop skips the list");
  await keys.press("Enter");
  await until(() => chat.page.evaluate(() => document.activeElement?.id), (id) => id === "composer");

  await chat.page.evaluate(() => document.querySelector(".skip").focus());
  await keyboardTo(chat, "More for");
  await keys.press("Enter");
  await keys.press("ArrowDown");
  await keys.press("ArrowUp");
  await keys.press("Enter");
  await keys.type("By keyboard");
  await keys.press("Enter");
  await chat.list.getByRole("link", { name: "By keyboard" }).waitFor();
  await until(() => chat.page.evaluate(() => document.activeElement?.textContent), (text) => text === "By keyboard");

  await keyboardTo(chat, "Edit");
  await keys.press("Enter");
  await keys.press("End");
  await keys.press("Escape");
  await focused(chat, "Edit");
  await keyboardTo(chat, "Answer again");
  await keys.press("Enter");
  await chat.shows("2/2");
  await chat.answered();
  await keys.press("/");
  await until(() => chat.page.evaluate(() => document.activeElement?.id), (id) => id === "composer");
  await keys.press("Control+k");
  await until(() => chat.page.evaluate(() => document.activeElement?.id), (id) => id === "search");
  await keys.press("Control+Shift+O");
  await chat.page.getByRole("heading", { name: "What can I do for you?" }).waitFor();
  await keyboardTo(chat, "Hide conversations");
  await keys.press("Enter");
  await focused(chat, "Show conversations");
  await keys.press("Enter");
  await focused(chat, "Hide conversations");
  await keyboardTo(chat, "Settings");
  await keys.press("Enter");
  await chat.page.getByRole("dialog", { name: "Settings" }).waitFor();
  await keys.press("Escape");
  await until(() => chat.page.getByRole("dialog").count(), (count) => count === 0);
}

export async function phone(order) {
  const chat = await Chat.open(order, { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true });
  await chat.box.fill("show markdown");
  await chat.page.getByRole("button", { name: "Send" }).tap();
  await chat.answered();
  const overflow = () => chat.page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok((await overflow()) <= 0, "nothing sticks out");
  await chat.page.getByRole("button", { name: "Show conversations" }).tap();
  await chat.list.getByRole("link", { name: /show markdown/ }).waitFor();
  assert.ok((await overflow()) <= 0);
  await chat.list.getByRole("button", { name: "New chat" }).tap();
  await chat.page.getByRole("heading", { name: "What can I do for you?" }).waitFor();
  await until(() => chat.list.isVisible(), (visible) => !visible);
  const small = await chat.page.evaluate(() =>
    [...document.querySelectorAll("main button, main select")]
      .map((each) => [each.getAttribute("aria-label"), each.getBoundingClientRect()])
      .filter(([, box]) => box.width < 24 || box.height < 24)
      .map(([label]) => label),
  );
  assert.deepEqual(small, [], "everything is large enough for a finger");
}

/** A window of 1280 × 800 at 200 %: a long draft scrolls in itself, and stays within the window. */
export async function zoomed(order) {
  const chat = await Chat.open(order, { viewport: { width: 640, height: 400 }, deviceScaleFactor: 2 });
  await chat.ask("count to 3");
  await chat.box.fill("a line\n".repeat(30));
  const bottom = () => chat.page.locator("form.composer").evaluate((form) => form.getBoundingClientRect().bottom);
  await until(bottom, (seen) => seen <= 400);
  await chat.box.press("Control+Home");
  await until(() => chat.box.evaluate((box) => box.scrollTop), (top) => top < 24);
  assert.ok(await chat.page.locator(".scroller").evaluate((box) => box.clientHeight > 80), "the conversation stays in sight");
}

async function accessible(chat, what) {
  await chat.page.addScriptTag({ path: axePath }).catch(() => {});
  const found = await chat.page.evaluate(async () => {
    const { violations } = await window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"] });
    return violations.map(({ id, impact, nodes }) => ({ id, impact, at: nodes.map((node) => node.html.slice(0, 160)).slice(0, 3) }));
  });
  const serious = found.filter(({ impact }) => impact === "serious" || impact === "critical");
  assert.deepEqual(serious, [], `${what}: ${JSON.stringify(found, null, 1)}`);
}

export async function axe(order) {
  const options = { bypassCSP: true, reducedMotion: "reduce" }; // axe itself is a foreign script; colours are read at rest
  for (const colorScheme of ["light", "dark"]) {
    const chat = await Chat.open(order, { ...options, colorScheme });
    await chat.box.waitFor();
    await accessible(chat, `${colorScheme} welcome`);
    await chat.ask("show markdown");
    await chat.answers.last().locator(".hljs-keyword").first().waitFor();
    await chat.answers.last().getByRole("button", { name: "Answer again" }).click();
    await chat.shows("2/2");
    await chat.answered();
    await chat.say("fail 500");
    await chat.answered("failed");
    await chat.list.getByRole("link").first().hover();
    await accessible(chat, `${colorScheme} conversation`);
    await chat.answers.first().locator(".facts").click();
    await chat.page.getByText("Calls of models").waitFor();
    await accessible(chat, `${colorScheme} trace`);
    await chat.page.keyboard.press("Escape");
    await chat.list.getByRole("button", { name: /^More for/ }).first().click();
    await accessible(chat, `${colorScheme} menu`);
    await chat.page.keyboard.press("Escape");
    await chat.page.getByRole("button", { name: "Settings" }).click();
    await accessible(chat, `${colorScheme} settings`);
    await chat.page.keyboard.press("Escape");
    await chat.page.setViewportSize({ width: 390, height: 844 });
    await accessible(chat, `${colorScheme} phone`);
    await chat.page.getByRole("button", { name: "Show conversations" }).click();
    await accessible(chat, `${colorScheme} phone list`);
  }
}

/** A screen reader hears that an answer is coming, and then the answer. */
export async function spoken(order) {
  const chat = await Chat.open(order);
  await chat.page.evaluate(() => {
    const region = document.querySelector("[aria-live=polite]");
    window.heard = [];
    new MutationObserver(() => window.heard.push(region.textContent)).observe(region, { subtree: true, childList: true, characterData: true });
  });
  await chat.ask("count to 5");
  const heard = await until(() => chat.page.evaluate(() => window.heard), (texts) => texts.length >= 2);
  assert.deepEqual(heard, ["Companion is writing", counted(5)]);
  await chat.page.getByRole("main").waitFor();
  await chat.page.getByRole("region", { name: "Conversation", exact: true }).waitFor();
}

export async function languages(order) {
  const chat = await Chat.open(order, { locale: "de-AT" });
  await chat.page.getByRole("button", { name: "Neuer Chat" }).first().waitFor();
  assert.equal(await chat.page.evaluate(() => document.documentElement.lang), "de");
  await chat.page.getByRole("button", { name: "Einstellungen" }).click();
  await chat.page.getByLabel("Sprache").selectOption("en");
  await chat.page.getByRole("heading", { name: "Settings" }).waitFor();
  await chat.page.keyboard.press("Escape");

  await chat.ask("مرحبا بالعالم، كيف حالك؟");
  const direction = (selector) => chat.page.locator(selector).first().evaluate((element) => getComputedStyle(element).direction);
  assert.equal(await direction(".bubble"), "rtl", "text has the direction of its letters");
  assert.equal(await direction(".answer .markdown p"), "ltr");
  await chat.page.evaluate(() => (document.documentElement.dir = "rtl"));
  const [side, box] = await Promise.all([chat.list.boundingBox(), chat.box.boundingBox()]);
  assert.ok(side.x > box.x, "the whole page can be mirrored");
}

export async function motion(order) {
  const chat = await Chat.open(order, { reducedMotion: "reduce" });
  await chat.say("count to 50 slowly");
  await chat.saying("1");
  const moving = await chat.page.evaluate(() => document.getAnimations().filter((each) => each.playState === "running").length);
  assert.equal(moving, 0);
}

/** The user's choice of colours holds against the system's. */
export async function colours(order) {
  const chat = await Chat.open(order, { colorScheme: "dark" });
  await chat.box.waitFor();
  const back = () => chat.page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const dark = await back();
  await chat.page.emulateMedia({ colorScheme: "light" });
  const light = await back();
  assert.notEqual(dark, light);
  await chat.page.getByRole("button", { name: "Settings" }).click();
  await chat.page.getByLabel("Appearance").selectOption("dark");
  assert.equal(await back(), dark);
  await chat.page.reload();
  await chat.box.waitFor();
  assert.equal(await back(), dark);
}

/** What is deleted by keyboard gives the focus to its neighbour, and to the search where there is none. */
export async function deletedByKey(order) {
  const chat = await Chat.open(order);
  const { keyboard: keys } = chat.page;
  for (const text of ["alpha one", "beta two"]) {
    await chat.page.getByRole("button", { name: "New chat" }).first().click();
    await chat.ask(text);
    await chat.list.getByRole("link", { name: text }).waitFor();
  }
  await chat.page.getByRole("button", { name: "New chat" }).first().click();
  const remove = async (title) => {
    await chat.list.getByRole("button", { name: `More for “${title}` }).focus();
    await keys.press("Enter");
    await keys.press("End");
    await keys.press("Enter");
  };
  await remove("beta two");
  await until(() => chat.page.evaluate(() => document.activeElement?.textContent), (text) => text.startsWith("alpha one"));
  await remove("alpha one");
  await until(() => chat.page.evaluate(() => document.activeElement?.id), (id) => id === "search");
}

/** Escape closes the list that covers a phone; what has an Escape of its own in there comes first. */
export async function escaped(order) {
  const chat = await Chat.open(order, { viewport: { width: 390, height: 844 } });
  const { keyboard: keys } = chat.page;
  await chat.ask("count to 3");
  const opener = chat.page.getByRole("button", { name: "Show conversations" });
  await opener.click();
  const link = chat.list.getByRole("link", { name: "count to 3" });
  await link.waitFor();
  await chat.page.getByRole("searchbox").fill("count");
  await keys.press("Escape");
  assert.equal(await chat.page.getByRole("searchbox").inputValue(), "");
  await chat.menu("count to 3", "Share");
  await chat.page.getByRole("dialog").getByRole("textbox", { name: "Link" }).waitFor();
  await keys.press("Escape");
  await until(() => chat.page.getByRole("dialog").count(), (count) => count === 0);
  assert.ok(await link.isVisible());
  await keys.press("Escape");
  await focused(chat, "Show conversations");
  await until(() => chat.list.isVisible(), (visible) => !visible);
}
