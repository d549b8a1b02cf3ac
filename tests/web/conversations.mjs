/** Talking, and keeping order among conversations. */

import { assert, Chat, counted, until } from "./helpers.mjs";

export async function conversation(order) {
  const chat = await Chat.open(order);
  await chat.ask("My name is Ada.");
  assert.match(await chat.ask("What is my name?"), /Your name is Ada\./);
  assert.equal(await chat.questions.count(), 2);
  const facts = await chat.answers.last().locator(".facts").innerText();
  await chat.answers.last().getByText("no cost").waitFor();
  assert.match(facts, /^companion · [\d.]+ s · \d+ tokens/);
  await chat.answers.last().locator(".facts").click();
  const why = chat.page.getByRole("dialog", { name: "Why this answer" });
  await why.getByText("companion → offline").waitFor();
  await why.getByText(/^Earlier turns: \d+ tokens/).waitFor();
  await chat.page.keyboard.press("Escape");
  await chat.list.getByRole("link", { name: /My name is Ada/ }).waitFor();
  await until(() => chat.page.title(), (title) => title.startsWith("My name is Ada"));
  assert.equal((await chat.turns()).length, 2);
}

export async function list(order) {
  const chat = await Chat.open(order);
  for (const text of ["alpha one", "beta two", "gamma three"]) {
    await chat.page.getByRole("button", { name: "New chat" }).first().click();
    await chat.ask(text);
    await chat.list.getByRole("link", { name: text }).waitFor();
  }
  const links = chat.list.getByRole("listitem").getByRole("link");
  const titles = async () => (await links.allInnerTexts()).map((title) => title.split(" ")[0]);
  await until(titles, (found) => found.join() === "gamma,beta,alpha"); // newest first, once the titles have been made

  await chat.page.getByRole("searchbox").fill("beta");
  await until(titles, (seen) => seen.join() === "beta");
  await chat.page.getByRole("searchbox").fill("real model");
  await until(() => chat.list.locator("small").count(), (count) => count === 3);
  await chat.page.getByRole("searchbox").press("Escape");
  await until(titles, (seen) => seen.length === 3);

  const full = await links.nth(2).getAttribute("title");
  await chat.menu(full, "Rename");
  const field = chat.page.getByRole("textbox", { name: "New title" });
  await field.fill("The very first");
  await field.press("Enter");
  await chat.list.getByRole("link", { name: "The very first" }).waitFor();

  await chat.menu("The very first", "Pin");
  await chat.list.getByRole("region", { name: "Pinned" }).getByRole("link", { name: "The very first" }).waitFor();

  await chat.menu("The very first", "Delete");
  await until(() => links.count(), (count) => count === 2);
  await until(async () => (await chat.api("/conversations")).data.length, (count) => count === 2);
  await chat.page.getByRole("button", { name: "Undo" }).click();
  await until(() => links.count(), (count) => count === 3);
  assert.match(await chat.answered(), /alpha one/, "it is back as it was");
  assert.equal((await chat.api("/conversations")).data.length, 3);
}

/** What the list changes of the conversation that is open is so everywhere, and the next answer does not undo it. */
export async function openChanged(order) {
  const chat = await Chat.open(order);
  await chat.ask("count to 3");
  await chat.list.getByRole("link", { name: "count to 3" }).waitFor();
  await chat.menu("count to 3", "Rename");
  const field = chat.page.getByRole("textbox", { name: "New title" });
  await field.fill("Numbers");
  await field.press("Enter");
  await chat.page.getByRole("heading", { name: "Numbers" }).waitFor({ timeout: 5000 }); // not only at the next look
  assert.equal(await chat.page.title(), "Numbers · Companion");
  await chat.menu("Numbers", "Pin");
  const pinned = chat.list.getByRole("region", { name: "Pinned" }).getByRole("link", { name: "Numbers" });
  await pinned.waitFor();
  await chat.say("count to 500 slowly");
  await chat.saying("1 2 3");
  assert.equal(await pinned.count(), 1);
  await chat.box.press("Escape");
  await chat.answered("cancelled");
  assert.equal(await pinned.count(), 1);
}

/** A link shows the conversation to anybody, as it was, until it is taken back. */
export async function share(order) {
  const chat = await Chat.open(order);
  await chat.ask("count to 3");
  const title = (await until(() => chat.page.title(), (text) => text.includes(" · "))).split(" · ")[0];
  await chat.menu(title, "Share");
  const link = await chat.page.getByRole("textbox", { name: "Link" }).inputValue();
  const stranger = await Chat.open({ ...order, key: undefined }, {}, new URL(link).pathname);
  await stranger.shows("Shared on");
  assert.equal(await stranger.answers.innerText(), counted(3));
  assert.equal(await stranger.box.count(), 0, "there is nothing to write");
  await stranger.page.route("**/v1/shared/*", (route) => route.fulfill({ status: 503, json: {} }), { times: 1 });
  await stranger.page.reload();
  await stranger.shows("The conversation could not be loaded.");
  await stranger.page.getByRole("button", { name: "Try again" }).click();
  await stranger.shows("Shared on");
  await chat.page.route("**/v1/shares/*", (route) => route.fulfill({ status: 400, json: {} }), { times: 1 });
  await chat.page.getByRole("button", { name: "Stop sharing" }).click();
  await chat.page.getByRole("alert").getByText("That did not work.").waitFor();
  await chat.page.getByRole("button", { name: "Stop sharing" }).click();
  await chat.shows("The link shows nothing any more.");
  await stranger.page.reload();
  await stranger.shows("This link shows nothing");
}

/** What a search finds can be renamed, deleted and had back, however far down the list it is. */
export async function foundFarDown(order) {
  const chat = await Chat.open(order);
  await chat.list.getByRole("link", { name: `Seeded ${order.conversations}`, exact: true }).waitFor();
  await chat.page.getByRole("searchbox").fill("Seeded 37");
  await until(() => chat.list.getByRole("link", { name: "Seeded 37", exact: true }).count(), (count) => count === 1);
  await chat.menu("Seeded 37", "Delete");
  await chat.page.getByRole("button", { name: "Undo", exact: true }).click();
  await chat.list.getByRole("link", { name: "Seeded 37", exact: true }).waitFor();
  await chat.page.getByRole("searchbox").fill("Seeded 38");
  await until(() => chat.list.getByRole("link", { name: "Seeded 38", exact: true }).count(), (count) => count === 1);
  await chat.menu("Seeded 38", "Rename");
  const field = chat.page.getByRole("textbox", { name: "New title" });
  await field.fill("No longer seeded");
  await field.press("Enter");
  await chat.list.getByRole("link", { name: "No longer seeded" }).waitFor();
}

/** More conversations than a page of the API: the list goes on as one scrolls. */
export async function endless(order) {
  const chat = await Chat.open(order);
  const all = order.conversations;
  await chat.list.getByRole("link", { name: `Seeded ${all}`, exact: true }).waitFor();
  const scroller = chat.page.locator(".list");
  await until(
    async () => {
      await scroller.evaluate((element) => element.scrollTo(0, element.scrollHeight));
      return chat.list.getByRole("listitem").count();
    },
    (count) => count === all,
  );
  await chat.list.getByRole("link", { name: "Seeded 1", exact: true }).waitFor();
}

export async function stop(order) {
  const chat = await Chat.open(order);
  await chat.say("count to 500 slowly");
  await chat.saying("1 2 3");
  await chat.page.getByRole("button", { name: "Stop", exact: true }).click();
  const text = await chat.answered("cancelled");
  assert.match(text, /^1 2 3/, "what was said stays");
  await chat.shows("You stopped this answer.");
  assert.match(await chat.ask("what did I say first?"), /count to 500 slowly/);
  await chat.say("count to 400 slowly");
  await chat.saying("1 2");
  await chat.box.press("Escape");
  await chat.answered("cancelled");
}

/** An answer that ended while another conversation was looked at leaves nothing behind: the next can be stopped. */
export async function stopAway(order) {
  const chat = await Chat.open(order);
  await chat.say("count to 500 slowly");
  await chat.saying("1 2 3");
  await chat.hasId();
  await chat.page.evaluate(() => {
    document.querySelector("button.send").click();
    document.querySelector("button.new").click();
  });
  await until(async () => (await chat.api("/conversations")).data.filter((each) => each.running).length, (count) => count === 0);
  await chat.page.goBack();
  await chat.answered("cancelled");
  await chat.say("count to 400 slowly");
  await chat.saying("1 2");
  await chat.page.waitForTimeout(500); // a tap right after Send is taken for its second half
  await chat.page.getByRole("button", { name: "Stop", exact: true }).click();
  await chat.answered("cancelled");
}

/** After an answer that was stopped, the next message can be stopped while it is on its way. */
export async function stopAgain(order) {
  const chat = await Chat.open(order);
  await chat.say("count to 500 slowly");
  await chat.saying("1 2 3");
  await chat.box.press("Escape");
  await chat.answered("cancelled");
  let send;
  const held = new Promise((resolve) => {
    send = resolve;
  });
  await chat.page.route(
    "**/v1/responses",
    async (route) => {
      await held;
      await route.continue();
    },
    { times: 1 },
  );
  await chat.say("count to 400 slowly");
  const stop = chat.page.getByRole("button", { name: "Stop", exact: true });
  await stop.waitFor({ timeout: 5000 });
  await chat.page.waitForTimeout(500); // a tap right after Send is taken for its second half
  await stop.click();
  send();
  await until(async () => (await chat.turns()).map((turn) => turn.status).join(), (all) => all === "cancelled,cancelled");
}

/** Stop is meant for one message: where that was refused, the next is answered. */
export async function stopRefused(order) {
  const chat = await Chat.open(order);
  await chat.ask("count to 2");
  let refuse;
  const asked = new Promise((resolve) => {
    refuse = resolve;
  });
  const json = { error: { message: "no", type: "invalid_request_error", code: null, param: null } };
  await chat.page.route(
    "**/v1/responses",
    async (route) => {
      await asked;
      await route.fulfill({ status: 400, json });
    },
    { times: 1 },
  );
  await chat.say("count to 5");
  await chat.answers.last().getByRole("img", { name: "Companion is writing" }).waitFor();
  await chat.box.press("Escape");
  refuse();
  await chat.page.getByRole("button", { name: "Back to editing" }).click();
  await until(() => chat.box.inputValue(), (text) => text === "count to 5");
  await chat.box.press("Enter");
  await chat.becomes(counted(5));
}

export async function regenerate(order) {
  const chat = await Chat.open(order);
  await chat.ask("count to 3");
  const [first] = await chat.turns();
  await chat.answers.last().getByRole("button", { name: "Answer again" }).click();
  await chat.shows("2/2");
  assert.equal(await chat.answered(), counted(3));
  assert.equal(await chat.questions.count(), 1, "the question stands once");
  await chat.page.getByRole("button", { name: "Previous version" }).click();
  await chat.shows("1/2");
  await until(async () => (await chat.api(`/conversations/${chat.id}`)).head, (head) => head === first.id);
  await chat.page.reload();
  await chat.shows("1/2");
}

export async function branches(order) {
  const chat = await Chat.open(order);
  await chat.ask("My colour is red.");
  await chat.ask("count to 2");
  const first = chat.questions.first();
  await first.hover();
  await first.getByRole("button", { name: "Edit" }).click();
  const editor = chat.page.getByRole("textbox", { name: "Edit your message" });
  await editor.fill("My colour is blue.");
  await chat.page.reload();
  assert.equal(await editor.inputValue(), "My colour is blue.", "a half edited message survives");
  await editor.press("Enter");
  await chat.shows("My colour is blue.");
  await until(() => chat.questions.count(), (count) => count === 1);
  await chat.answered();
  assert.match(await chat.ask("What is my colour?"), /blue/);

  await chat.questions.first().getByRole("button", { name: "Previous version" }).click();
  await chat.shows("My colour is red.");
  await until(() => chat.questions.count(), (count) => count === 2);
  assert.match(await chat.ask("What is my colour?"), /red/, "each branch knows its own past");
  await chat.questions.first().getByRole("button", { name: "Next version" }).click();
  await chat.shows("My colour is blue.");
  assert.equal(await chat.questions.count(), 2, "the branch is where it was left");
  assert.equal((await chat.turns()).length, 5);
}

/** An edited question whose answer failed is a version like any other: its words are found again. */
export async function editFailed(order) {
  const chat = await Chat.open(order);
  await chat.ask("count to 2");
  await chat.ask("count to 3");
  await chat.questions.first().hover();
  await chat.questions.first().getByRole("button", { name: "Edit" }).click();
  const editor = chat.page.getByRole("textbox", { name: "Edit your message" });
  await editor.fill("fail 500");
  await editor.press("Enter");
  await chat.answered("failed");
  await chat.page.reload();
  await chat.becomes(counted(3));
  await chat.questions.first().getByRole("button", { name: "Next version" }).click();
  await chat.answered("failed");
  assert.match(await chat.questions.first().innerText(), /^fail 500/);
  await chat.questions.first().getByRole("button", { name: "Previous version" }).click();
  await chat.becomes(counted(3));
}

/** A message that is being edited waits for an answer that has begun meanwhile; its words are not lost. */
export async function editBusy(order) {
  const chat = await Chat.open(order);
  await chat.ask("count to 2");
  await chat.questions.first().hover();
  await chat.questions.first().getByRole("button", { name: "Edit" }).click();
  const editor = chat.page.getByRole("textbox", { name: "Edit your message" });
  await editor.fill("count to 3");
  await chat.say("count to 500 slowly");
  await chat.saying("1 2 3");
  await editor.press("Enter");
  assert.ok(await chat.page.getByRole("button", { name: "Send as a new version" }).isDisabled());
  assert.equal(await editor.inputValue(), "count to 3");
  await chat.box.press("Escape");
  await chat.answered("cancelled");
  await editor.press("Enter");
  await chat.becomes(counted(3));
}

const PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

export async function attach(order) {
  const chat = await Chat.open(order);
  const chooser = chat.page.waitForEvent("filechooser");
  await chat.page.getByRole("button", { name: "Attach images or files" }).click();
  await (await chooser).setFiles({ name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from("remember the milk") });
  await chat.page.getByRole("button", { name: "Remove notes.txt" }).waitFor();

  const give = (kind, target) =>
    target.evaluate(
      (element, [pixel, how]) => {
        const bytes = Uint8Array.from(atob(pixel), (character) => character.charCodeAt(0));
        const transfer = new DataTransfer();
        transfer.items.add(new File([bytes], `${how}.png`, { type: "image/png" }));
        const options = { bubbles: true, cancelable: true };
        const event =
          how === "paste"
            ? new ClipboardEvent("paste", { ...options, clipboardData: transfer })
            : new DragEvent("drop", { ...options, dataTransfer: transfer });
        element.dispatchEvent(event);
      },
      [PIXEL, kind],
    );
  await give("paste", chat.box);
  await chat.page.getByRole("button", { name: "Remove paste.png" }).waitFor();
  await give("drop", chat.page.getByRole("main").locator(".welcome"));
  await chat.page.getByRole("button", { name: "Remove drop.png" }).waitFor();
  await chat.box.fill("look");

  await chat.page.reload();
  await chat.page.getByRole("button", { name: "Remove drop.png" }).waitFor();
  await until(() => chat.box.inputValue(), (text) => text === "look");
  await chat.page.getByRole("button", { name: "Remove paste.png" }).click();

  await chat.box.press("Enter");
  assert.match(await chat.answered(), /I see 1 image and 1 file \(notes\.txt\)\. You said: 'look'/);
  assert.equal(await chat.questions.first().getByRole("img").count(), 1);
  await chat.page.reload();
  assert.equal(await chat.answered(), await chat.text());
  await until(() => chat.box.inputValue(), (text) => text === "");
  assert.equal(await chat.page.getByRole("button", { name: /^Remove/ }).count(), 0, "what was sent is no draft any more");
}

export async function models(order) {
  const chat = await Chat.open(order);
  await chat.page.getByRole("combobox", { name: "Model" }).selectOption("companion-reasoning");
  await chat.ask("count to 2");
  await chat.shows("Thought first");
  assert.match(await chat.answers.last().locator(".facts").innerText(), /^companion-reasoning/);
  await chat.page.reload();
  assert.equal(await chat.page.getByRole("combobox", { name: "Model" }).inputValue(), "companion-reasoning");
}

/** Nobody needs to know what a browser holds: a key is asked for, refused, accepted. */
export async function key(order) {
  const chat = await Chat.open({ ...order, open: (options) => order.open(options) });
  await chat.page.getByRole("heading", { name: "This server asks for a key" }).waitFor();
  await chat.page.getByLabel("API key").fill("wrong");
  await chat.page.getByRole("button", { name: "Continue" }).click();
  await chat.shows("This key was refused.");
  await chat.page.getByLabel("API key").fill(order.entered);
  await chat.page.getByRole("button", { name: "Continue" }).click();
  await chat.ask("count to 2");
  await chat.page.getByRole("button", { name: "Settings" }).click();
  await chat.page.getByRole("button", { name: "Forget the key" }).click();
  await chat.page.getByRole("heading", { name: "This server asks for a key" }).waitFor();
  assert.deepEqual(await chat.page.evaluate(() => Object.keys(localStorage)), []);
}

/** While an answer is written there is no way to another version, and none is offered. */
export async function versionsBusy(order) {
  const chat = await Chat.open(order);
  await chat.ask("count to 3");
  await chat.answers.last().getByRole("button", { name: "Answer again" }).click();
  await chat.shows("2/2");
  await chat.answered();
  await chat.say("count to 500 slowly");
  await chat.saying("1 2 3");
  const previous = chat.page.getByRole("button", { name: "Previous version" });
  assert.ok(await previous.isDisabled());
  await chat.box.press("Escape");
  await chat.answered("cancelled");
  await previous.click();
  await chat.shows("1/2");
}

/** The links of a conversation are shown again, and each can be taken back; a new one is made where it is asked for. */
export async function sharedBefore(order) {
  const chat = await Chat.open(order);
  await chat.ask("count to 3");
  const title = (await until(() => chat.page.title(), (text) => text.includes(" · "))).split(" · ")[0];
  const dialog = chat.page.getByRole("dialog", { name: "Share" });
  const links = dialog.getByRole("textbox", { name: "Link" });
  await chat.menu(title, "Share");
  const link = await links.inputValue();
  await chat.page.keyboard.press("Escape");

  await chat.menu(title, "Share");
  assert.equal(await links.inputValue(), link, "looking at it makes no other link");
  await dialog.getByRole("button", { name: "New link to how it is now" }).click();
  await until(() => links.count(), (count) => count === 2);
  assert.notEqual(await links.first().inputValue(), link, "the newest is the first");
  await dialog.getByRole("button", { name: "Stop sharing" }).last().click();
  await until(() => links.count(), (count) => count === 1);
  const shares = await chat.api(`/shares?conversation=${chat.id}`);
  assert.deepEqual(shares.data.map((each) => new URL(link).pathname.endsWith(each.id)), [false]);
  await dialog.getByRole("button", { name: "Stop sharing" }).click();
  await chat.shows("The link shows nothing any more.");
}
