// Stock `openai` on Node: the same two-turn conversation by conversation, by previous_response_id, and by chat completions.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: "local" });
const turns = ["My name is Ada.", "What is my name?"];
const answers = {};

async function streamed(stream) {
  let text = "";
  let last = -1;
  let final;
  for await (const event of stream) {
    if (event.sequence_number !== last + 1) throw new Error(`event ${event.sequence_number} after ${last}`);
    last = event.sequence_number;
    if (event.type === "response.output_text.delta") text += event.delta;
    if (event.type === "response.completed") final = event.response;
  }
  if (final.status !== "completed") throw new Error(`status ${final.status}`);
  return { id: final.id, text };
}

const conversation = await client.conversations.create();
answers.conversation = [];
for (const input of turns) {
  const stream = await client.responses.create({ model: "companion", conversation: conversation.id, input, stream: true });
  answers.conversation.push((await streamed(stream)).text);
}

answers.chain = [];
let previous_response_id;
for (const input of turns) {
  const stream = await client.responses.create({ model: "companion", previous_response_id, input, stream: true });
  const { id, text } = await streamed(stream);
  previous_response_id = id;
  answers.chain.push(text);
}

answers.chat = [];
const messages = [];
for (const content of turns) {
  messages.push({ role: "user", content });
  const stream = client.chat.completions.stream({ model: "companion", messages });
  const message = await stream.finalMessage();
  messages.push(message);
  answers.chat.push(message.content);
}

const items = [];
for await (const item of client.conversations.items.list(conversation.id, { order: "asc", limit: 2 })) items.push(item.role);
answers.roles = items;

console.log(JSON.stringify(answers));
