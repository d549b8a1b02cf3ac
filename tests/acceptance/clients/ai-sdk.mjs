// Stock `@ai-sdk/openai` with `ai`: two streamed turns, on its Responses model and on its chat model.
// The Responses model names earlier messages by item_reference, because state is the server's.
import { createOpenAI } from "@ai-sdk/openai";
import { streamText } from "ai";
import OpenAI from "openai";

const provider = createOpenAI({ baseURL: process.env.BASE_URL, apiKey: "local" });
const turns = ["My name is Ada.", "What is my name?"];

function onError({ error }) {
  console.error(error);
  process.exit(1);
}

async function converse(model, providerOptions) {
  const messages = [];
  const answers = [];
  for (const content of turns) {
    messages.push({ role: "user", content });
    const result = streamText({ model, messages, providerOptions, maxRetries: 0, onError });
    let text = "";
    for await (const delta of result.textStream) text += delta;
    if ((await result.finishReason) !== "stop") throw new Error(`finished with ${await result.finishReason}`);
    messages.push(...(await result.response).messages);
    answers.push(text);
  }
  return answers;
}

async function conversing() {
  const { id } = await new OpenAI({ baseURL: process.env.BASE_URL, apiKey: "local" }).conversations.create();
  const answers = [];
  for (const prompt of turns) {
    const result = streamText({ model: provider("companion"), prompt, onError, providerOptions: { openai: { conversation: id } } });
    answers.push(await result.text);
  }
  return answers;
}

console.log(JSON.stringify({
  responses: await converse(provider("companion")),
  chat: await converse(provider.chat("companion")),
  conversation: await conversing(),
}));
