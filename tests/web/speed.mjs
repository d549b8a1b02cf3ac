/** What is promised of speed. Processor time is measured where possible: it does not depend on what else the machine does. */

import { assert, Chat, until } from "./helpers.mjs";

/** Seconds of processor time that the page's main thread spent on this, and how it ran meanwhile. */
async function measured(chat, work) {
  const session = await chat.page.context().newCDPSession(chat.page);
  await session.send("Performance.enable", { timeDomain: "threadTicks" });
  const read = async () => {
    const { metrics } = await session.send("Performance.getMetrics");
    return metrics.find(({ name }) => name === "TaskDuration").value;
  };
  await chat.page.evaluate(() => {
    window.frames_ = [];
    const tick = (now) => {
      window.frames_.push(now);
      window.ticking = requestAnimationFrame(tick);
    };
    window.ticking = requestAnimationFrame(tick);
  });
  const before = await read();
  await work();
  const seconds = (await read()) - before;
  const gaps = await chat.page.evaluate(() => {
    cancelAnimationFrame(window.ticking);
    return window.frames_.slice(1).map((now, index) => now - window.frames_[index]);
  });
  await session.detach();
  gaps.sort((a, b) => a - b);
  return { seconds, frames: gaps.length, median: gaps[gaps.length >> 1], worst: gaps.at(-1) };
}

/** The first view: what is fetched, and how much of it is script. */
export async function firstView(order) {
  const context = await order.open({ extraHTTPHeaders: { "accept-encoding": "gzip" } });
  const page = await context.newPage();
  const fetched = [];
  page.on("response", (response) => fetched.push({ pathname: new URL(response.url()).pathname, response }));
  const chat = new Chat(page, order);
  await page.goto(order.base);
  await chat.box.waitFor();
  await page.waitForLoadState("networkidle");
  const scripts = fetched.filter(({ pathname }) => pathname.endsWith(".js"));
  let total = 0;
  for (const { response } of scripts) total += (await response.request().sizes()).responseBodySize;
  assert.ok(scripts.length >= 1);
  assert.ok(total > 50_000 && total < 250_000, `${total} bytes of script`);
  for (const { pathname, response } of scripts) {
    const headers = response.headers();
    assert.equal(headers["content-encoding"], "gzip");
    assert.match(headers["cache-control"], /immutable/);
    assert.doesNotMatch(pathname, /katex|highlight/, "fetched on demand only");
  }
  await chat.ask("show markdown");
  await until(() => fetched.map(({ pathname }) => pathname).join(), (paths) => /highlight.*\.js/.test(paths) && /katex.*\.js/.test(paths));
  return { script: total };
}

/** From the arrival of the first words to their display: the very next frame. */
export async function firstToken(order) {
  const context = await order.open();
  await context.addInitScript(() => {
    const original = window.fetch;
    window.seen = { frame: 0 };
    const tick = () => {
      window.seen.frame += 1;
      if (window.seen.arrived !== undefined && window.seen.shown === undefined && /\b1\b/.test(document.querySelector(".answer .markdown")?.textContent ?? "")) {
        window.seen.shown = window.seen.frame;
      }
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
    window.fetch = async (...request) => {
      const response = await original(...request);
      if (!response.headers.get("content-type")?.includes("event-stream")) return response;
      const decoder = new TextDecoder();
      const watch = new TransformStream({
        transform(chunk, controller) {
          if (window.seen.arrived === undefined && decoder.decode(chunk).includes("output_text.delta")) window.seen.arrived = window.seen.frame;
          controller.enqueue(chunk);
        },
      });
      return new Response(response.body.pipeThrough(watch), response);
    };
  });
  const chat = await Chat.in(context, order);
  await chat.say("count to 20 slowly");
  await until(() => chat.page.evaluate(() => window.seen.shown), (shown) => shown !== undefined);
  const { arrived, shown } = await chat.page.evaluate(() => window.seen);
  // counted at the start of frames: the frame that shows it is seen at the start of the next one
  assert.ok(shown - arrived <= 2, `arrived before frame ${arrived + 1}, seen in place at frame ${shown}`);
}

/** Two thousand turns: few elements, and scrolling that leaves most of each frame free. */
export async function long(order) {
  const chat = await Chat.open(order, {}, `/c/${order.conversation}`);
  await chat.shows(`question ${order.turns}`);
  const scroller = chat.page.getByRole("region", { name: "Conversation", exact: true });
  const box = await scroller.boundingBox();
  await chat.page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  const scrolls = 150;
  const speed = await measured(chat, async () => {
    for (let scroll = 0; scroll < scrolls; scroll += 1) await chat.page.mouse.wheel(0, -300);
  });
  const rows = await chat.page.locator(".row").count();
  assert.ok(rows < 80, `${rows} rows exist as elements`);
  const perScroll = (speed.seconds * 1000) / scrolls;
  assert.ok(perScroll < 60, `${perScroll.toFixed(1)} ms of processor per scrolled step`); // far above what a slow machine takes
  await until(
    async () => {
      await scroller.evaluate((element) => element.scrollTo(0, 0));
      return (await chat.questions.first().innerText()).trim();
    },
    (text) => text === "question 1",
    60_000,
  );
  assert.ok((await chat.page.locator(".row").count()) < 80);
  await chat.page.getByRole("button", { name: "Jump to the latest message" }).click();
  await chat.shows(`question ${order.turns}`);
  const typing = await measured(chat, () => chat.box.pressSequentially("a quick brown fox"));
  const answering = await measured(chat, () => chat.ask("count to 40"));
  assert.equal(await chat.questions.last().innerText(), "count to 40");
  return { perScroll, median: speed.median, typing: typing.seconds, answering: answering.seconds };
}

const BLOCK = [
  "## Part",
  "Some **bold** words, `code`, a [link](https://example.com/a) and $x^2$; " + "averyveryverylongwordwithoutanyend".repeat(12),
  "- one " + "item".repeat(30) + "\n- two\n- three",
  "| a | b |\n|---|---|\n| " + "cell".repeat(20) + " | 2 |",
  "```js\nconst x = '" + "string".repeat(60) + "';\nconsole.log(x);\n```",
].join("\n\n");

/** A hundred kilobytes of markdown arrive in a few seconds, and the page stays smooth. */
export async function large(order) {
  const chat = await Chat.open(order);
  const text = Array.from({ length: Math.ceil(100_000 / BLOCK.length) }, () => BLOCK).join("\n\n");
  assert.ok(text.length > 100_000);
  await chat.box.fill(`slowly 4s: ${text}`);
  let seconds = 0;
  const began = Date.now();
  const speed = await measured(chat, async () => {
    await chat.box.press("Enter");
    await chat.answers.first().waitFor();
    await chat.answered();
    seconds = (Date.now() - began) / 1000;
  });
  assert.equal(await chat.answers.last().locator(".table").count(), text.split("## Part").length - 1);
  const share = speed.seconds / seconds;
  assert.ok(share < 0.95, `the main thread was busy ${Math.round(share * 100)} % of the time`);
  const atEnd = await chat.page.locator(".scroller").evaluate((element) => element.scrollHeight - element.scrollTop - element.clientHeight);
  assert.ok(atEnd < 60, "the end stays in sight");
  return { share, seconds, median: speed.median, worst: speed.worst };
}
