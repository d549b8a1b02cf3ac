/** Nothing typed or half answered is ever lost, and nothing is sent twice. */

import { assert, Chat, counted, until } from "./helpers.mjs";

const SLOW = "slowly 4s: count to 40";
const WHOLE = counted(40);

export async function reload(order) {
  const chat = await Chat.open(order);
  await chat.say(SLOW);
  await chat.saying("1 2 3");
  await chat.page.reload();
  await chat.saying("1 2 3");
  assert.equal(await chat.answers.last().getAttribute("aria-busy"), "true", "still running");
  await chat.becomes(WHOLE);
  assert.equal((await chat.turns()).length, 1);
}

/** The page dies at once after the key was pressed: whatever the server knows by then, the message is sent once. */
export async function killed(order) {
  const context = await order.open();
  const chat = await Chat.in(context, order);
  await chat.ask("count to 2");
  const path = `/c/${await chat.hasId()}`;
  await chat.page.route("**/v1/responses", (route) => route.abort());
  await chat.say("count to 5");
  await chat.shows("Waiting for the connection");
  await chat.page.close();
  const again = await Chat.in(context, order, path);
  await again.becomes(counted(5));
  assert.equal((await again.turns()).length, 2);
}

/** The server took the message, its answer never arrived: sent again under the same key, it is the same turn. */
export async function unheard(order) {
  const chat = await Chat.open(order);
  let sends = 0;
  await chat.page.route("**/v1/responses", async (route) => {
    sends += 1;
    if (sends > 2) return route.continue();
    await route.fetch(); // it does arrive
    return route.abort();
  });
  await chat.say("count to 7");
  await chat.becomes(counted(7));
  assert.equal(sends, 3);
  assert.equal((await chat.turns()).length, 1);
  assert.equal((await chat.api("/conversations")).data.filter((each) => each.head).length, 1);
}

export async function double(order) {
  const chat = await Chat.open(order);
  await chat.box.fill("count to 3");
  await chat.page.getByRole("button", { name: "Send" }).dblclick();
  await chat.answered();
  await chat.box.fill("count to 4");
  await chat.page.evaluate(() => {
    const form = document.querySelector("form.composer");
    form.requestSubmit();
    form.requestSubmit();
  });
  await chat.saying("4");
  await chat.answered();
  assert.equal((await chat.turns()).length, 2);
}

export async function switching(order) {
  const chat = await Chat.open(order);
  await chat.say(SLOW);
  await chat.saying("1 2 3");
  await chat.page.getByRole("button", { name: "New chat" }).first().click();
  await chat.page.getByRole("heading", { name: "What can I do for you?" }).waitFor();
  await chat.list.getByRole("img", { name: "answering" }).waitFor();
  await chat.page.goBack();
  await chat.saying("1 2 3");
  await chat.becomes(WHOLE);
}

export async function tabs(order) {
  const context = await order.open();
  const one = await Chat.in(context, order);
  await one.say(SLOW);
  await one.saying("1 2 3");
  const two = await Chat.in(context, order, `/c/${await one.hasId()}`);
  await two.saying("1 2 3");
  await one.becomes(WHOLE);
  await two.becomes(WHOLE);
  await two.say("slowly 2s: count to 20");
  await one.saying("1 2");
  await one.becomes(counted(20));
  const device = await Chat.open(order, {}, `/c/${one.id}`);
  await device.becomes(counted(20));
  assert.equal((await one.turns()).length, 2);
}

/** Deleted in one tab and had back there: the other tab shows it again too. */
export async function restoredElsewhere(order) {
  const context = await order.open();
  const one = await Chat.in(context, order);
  await one.ask("count to 3");
  await one.list.getByRole("link", { name: "count to 3" }).waitFor();
  const two = await Chat.in(context, order, `/c/${await one.hasId()}`);
  await two.answered();
  await one.menu("count to 3", "Delete");
  await two.shows("This conversation does not exist");
  await one.page.getByRole("button", { name: "Undo", exact: true }).click();
  assert.equal(await two.answered(), counted(3));
}

/** A key is forgotten in one tab while another is open: nothing is kept, and the next message goes out. */
export async function forgotten(order) {
  const context = await order.open();
  const other = await Chat.in(context, order);
  await other.ask("count to 2");
  const chat = await Chat.in(context, order);
  await chat.page.getByRole("button", { name: "Settings" }).click();
  await chat.page.getByRole("button", { name: "Forget the key" }).click();
  await chat.page.waitForLoadState(); // the browser of a scenario with a key puts it back
  assert.equal(await chat.ask("count to 3"), counted(3));
}

/** Two windows of different browsers ask in the same conversation at once: one waits for the other. */
export async function contention(order) {
  const one = await Chat.open(order);
  await one.ask("count to 2");
  const two = await Chat.open(order, {}, `/c/${one.id}`);
  await two.answered();
  await one.say("slowly 2s: count to 20");
  await two.say("count to 3");
  await one.answered();
  await until(async () => (await one.turns()).filter((turn) => turn.status === "completed").length, (count) => count === 3);
  await two.becomes(counted(3));
}

export async function restart(order) {
  const chat = await Chat.open(order);
  await chat.say("slowly 6s: count to 60");
  await chat.saying("1 2 3 4 5");
  await order.ask("kill");
  await chat.shows(/The server cannot be reached|Connection lost/);
  await chat.box.fill("typed while the server was away");
  await order.ask("start");
  await chat.becomes(counted(60));
  await chat.page.getByText("Interrupted attempt").waitFor();
  await until(() => chat.box.inputValue(), (text) => text === "typed while the server was away");
  assert.equal((await chat.turns()).length, 1);
  assert.equal(await chat.page.locator(".notice").count(), 0);
}

export async function offline(order) {
  const context = await order.open();
  const chat = await Chat.in(context, order);
  await chat.ask("count to 2");
  await context.setOffline(true);
  await chat.shows("You are offline.");
  await chat.say("count to 4");
  await chat.shows("Waiting for the connection. Your message will be sent once.");
  await chat.page.getByRole("button", { name: "Back to editing" }).click();
  await until(() => chat.box.inputValue(), (text) => text === "count to 4");
  await chat.box.press("Enter");
  await chat.shows("Waiting for the connection");
  assert.equal((await chat.turns()).length, 1);
  await context.setOffline(false);
  await chat.becomes(counted(4));
  await until(() => chat.page.locator(".notice").count(), (count) => count === 0);
  assert.equal((await chat.turns()).length, 2);
}

/** A conversation that could not be had back just now still can be. */
export async function undoOffline(order) {
  const context = await order.open();
  const chat = await Chat.in(context, order);
  await chat.ask("count to 3");
  await chat.list.getByRole("link", { name: "count to 3" }).waitFor();
  await chat.menu("count to 3", "Delete");
  const undo = chat.page.getByRole("button", { name: "Undo", exact: true });
  await undo.waitFor();
  await context.setOffline(true);
  await undo.click();
  await chat.shows("That did not work: the server cannot be reached.");
  await context.setOffline(false);
  await undo.click();
  assert.equal(await chat.answered(), counted(3));
}

/** A refused message that the user went on without is not sent by the next page: it is offered there. */
export async function leftBehind(order) {
  const chat = await Chat.open(order);
  await chat.ask("count to 2");
  await chat.page.route("**/v1/responses", (route) => route.fulfill({ status: 400, json: {} }), { times: 1 });
  await chat.say("count to 9");
  await chat.shows("The request was not accepted as it is.");
  await chat.say("count to 3");
  await chat.becomes(counted(3));
  await chat.page.reload();
  await chat.shows("This message was not sent");
  await chat.page.getByRole("button", { name: "Back to editing" }).click();
  await until(() => chat.box.inputValue(), (text) => text === "count to 9");
  await chat.becomes(counted(3));
  assert.equal((await chat.turns()).length, 2);
}

/** The connection drops in the middle of an answer and comes back. */
export async function dropped(order) {
  const context = await order.open();
  const chat = await Chat.in(context, order);
  await chat.say(SLOW);
  await chat.saying("1 2 3");
  await context.setOffline(true);
  await chat.shows("You are offline.");
  await context.setOffline(false);
  await chat.becomes(WHOLE);
}

export async function drafts(order) {
  const chat = await Chat.open(order);
  await chat.box.fill("for a new chat");
  await chat.page.reload();
  await until(() => chat.box.inputValue(), (text) => text === "for a new chat");
  await chat.box.press("Enter");
  await chat.answered();
  await chat.box.pressSequentially("for this one");
  await chat.page.getByRole("button", { name: "New chat" }).first().click();
  await chat.page.getByRole("heading", { name: "What can I do for you?" }).waitFor();
  await until(() => chat.box.inputValue(), (text) => text === "");
  await chat.page.goBack();
  await until(() => chat.box.inputValue(), (text) => text === "for this one");
}

/** A page that could not load anything does so as soon as the connection is back. */
export async function firstLoad(order) {
  const context = await order.open();
  const one = await Chat.in(context, order);
  await one.ask("count to 3");
  const path = `/c/${await one.hasId()}`;
  await one.page.close();
  await context.route("**/v1/**", (route) => route.abort());
  const chat = await Chat.in(context, order, path);
  await chat.shows("The conversation could not be loaded.");
  await context.setOffline(true);
  await context.unroute("**/v1/**");
  await context.setOffline(false);
  const link = chat.list.getByRole("link", { name: "count to 3" });
  await link.waitFor({ timeout: 5000 }); // not only at the next look
  await chat.answers.last().waitFor({ timeout: 5000 });
  assert.equal(await chat.answered(), counted(3));
}

/** A search that did not reach the server found nothing out: that is said, and it is made again. */
export async function searchOffline(order) {
  const context = await order.open();
  const chat = await Chat.in(context, order);
  await chat.ask("count to 3");
  await chat.list.getByRole("link", { name: "count to 3" }).waitFor();
  await context.setOffline(true);
  await chat.page.getByRole("searchbox").fill("1 2 3");
  await chat.shows("The search could not be made just now");
  assert.equal(await chat.page.getByText("Nothing found").count(), 0);
  await context.setOffline(false);
  await chat.list.getByRole("link", { name: "count to 3" }).waitFor();
  await until(() => chat.page.getByText("The search could not be made").count(), (count) => count === 0);
}

/** What can be undone is offered where it covers no button of the composer, in a window of any size. */
export async function undoBeside(order) {
  const chat = await Chat.open(order);
  await chat.ask("a conversation whose title is as long as that of most and longer than that of many");
  const title = (await until(() => chat.page.title(), (text) => text.includes(" · "))).split(" · ")[0];
  await chat.menu(title, "Delete");
  await chat.page.getByRole("button", { name: "Undo", exact: true }).waitFor();
  const covered = () =>
    chat.page.evaluate(() => {
      const toast = document.querySelector(".toast").getBoundingClientRect();
      return [...document.querySelectorAll(".composer button, .composer select, .composer textarea")]
        .filter((each) => {
          const box = each.getBoundingClientRect();
          return box.left < toast.right && toast.left < box.right && box.top < toast.bottom && toast.top < box.bottom;
        })
        .map((each) => each.getAttribute("aria-label"));
    });
  for (const width of [1280, 800, 390]) {
    await chat.page.setViewportSize({ width, height: 700 });
    assert.deepEqual(await covered(), [], `at ${width} pixels`);
  }
}

/** A server that answers can be reached, also when it cannot do what it was asked for. */
export async function unwell(order) {
  const chat = await Chat.open(order);
  await chat.ask("count to 3");
  await chat.list.getByRole("link", { name: "count to 3" }).waitFor();
  for (const status of [429, 503]) {
    await chat.page.route("**/v1/conversations/*", (route) =>
      route.request().method() === "POST" ? route.fulfill({ status, json: {} }) : route.continue(),
    );
    await chat.menu("count to 3", "Pin");
    await chat.shows("That did not work just now.");
    await chat.page.unroute("**/v1/conversations/*");
    await chat.page.reload();
    await chat.page.route("**/v1/responses", (route) => route.fulfill({ status, json: {} }), { times: 3 });
    await chat.say("count to 4");
    await chat.shows("The server cannot take your message just now;");
    await chat.becomes(counted(4));
    await chat.page.unroute("**/v1/responses");
  }
}

/** Stop is kept while there is no connection: the answer is stopped as soon as there is. */
export async function stopOffline(order) {
  const context = await order.open();
  const chat = await Chat.in(context, order);
  await chat.say("slowly 20s: count to 200");
  await chat.saying("1 2 3");
  await context.setOffline(true);
  await chat.shows("You are offline.");
  await chat.page.getByRole("button", { name: "Stop", exact: true }).click();
  await chat.shows("The answer is stopped as soon as the server hears of it.");
  await chat.page.getByRole("button", { name: "Stopping" }).waitFor();
  await context.setOffline(false);
  await chat.answered("cancelled");
}
