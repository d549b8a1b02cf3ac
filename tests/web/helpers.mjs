/** The page as a user sees it, in the words the scenarios use. */

import assert from "node:assert/strict";

export { assert };

export class Chat {
  constructor(page, { base, key }) {
    this.page = page;
    this.base = base;
    this.key = key;
    this.box = page.getByRole("textbox", { name: "Message Companion" });
    this.questions = page.getByRole("article", { name: "You said" });
    this.answers = page.getByRole("article", { name: "Companion said" });
    this.list = page.getByRole("navigation", { name: "Conversations" });
  }

  static async open(order, options = {}, path = "/") {
    const context = await order.open(options);
    return Chat.in(context, order, path);
  }

  static async in(context, order, path = "/") {
    const chat = new Chat(await context.newPage(), order);
    await chat.page.goto(order.base + path);
    return chat;
  }

  async say(text) {
    await this.box.fill(text);
    await this.box.press("Enter");
  }

  /** Say it and wait until it is answered. */
  async ask(text) {
    const before = await this.answers.count();
    await this.say(text);
    await this.answers.nth(before).waitFor();
    return this.answered();
  }

  /** The last answer's text, once it is final. */
  async answered(status = "completed") {
    await this.page.waitForFunction(
      (wanted) => [...document.querySelectorAll(".answer")].at(-1)?.dataset.status === wanted,
      status,
    );
    return this.text();
  }

  /** Wait until the last answer is final and says exactly this. */
  async becomes(text) {
    await until(async () => [await this.answers.last().getAttribute("data-status"), await this.text()], ([status, seen]) => status === "completed" && seen === text);
  }

  text() {
    return this.page.evaluate(() =>
      [...([...document.querySelectorAll(".answer")].at(-1)?.querySelectorAll(":scope > .markdown") ?? [])]
        .map((each) => each.innerText)
        .join("\n"),
    );
  }

  /** Wait until the last answer has this text in it, finished or not. */
  async saying(text) {
    await this.page.waitForFunction(
      (wanted) => [...document.querySelectorAll(".answer")].at(-1)?.innerText.includes(wanted),
      text,
    );
  }

  async shows(text) {
    await this.page.getByText(text).first().waitFor();
  }

  get id() {
    return new URL(this.page.url()).pathname.split("/")[2];
  }

  async hasId() {
    await this.page.waitForURL("**/c/conv_*");
    return this.id;
  }

  /** Ask the API itself. */
  async api(path, options = {}) {
    const response = await fetch(`${this.base}/v1${path}`, {
      ...options,
      headers: { authorization: `Bearer ${this.key ?? "local"}`, "content-type": "application/json" },
    });
    return response.json();
  }

  async turns() {
    return (await this.api(`/conversations/${await this.hasId()}/turns?limit=100`)).data;
  }

  async menu(title, choice) {
    await this.list.getByRole("button", { name: `More for “${title}”` }).click();
    await this.page.getByRole("menuitem", { name: choice }).click();
  }
}

export const counted = (to) => Array.from({ length: to }, (_, index) => index + 1).join(" ");

/** Repeat a look until it is what it should be. */
export async function until(look, isRight, patience = 20_000) {
  const end = Date.now() + patience;
  for (;;) {
    const seen = await look();
    if (isRight(seen)) return seen;
    assert.ok(Date.now() < end, `still not so: ${JSON.stringify(seen)}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
