/** The tree of a conversation's turns, and how a stream of events grows one of them. Pure functions. */

import type { ResponseStreamEvent } from "openai/resources/responses/responses";

import { isFinal, type Item, type Part, type Status, type Turn } from "./types";

export type Turns = ReadonlyMap<string, Turn>;

/** From the first turn that is loaded to `tip`. */
export function pathTo(turns: Turns, tip: string | null): Turn[] {
  const path: Turn[] = [];
  for (let turn = tip ? turns.get(tip) : undefined; turn; turn = turn.parent ? turns.get(turn.parent) : undefined) {
    path.push(turn);
  }
  return path.reverse();
}

/** The turns that continue each turn (or, under "", none), oldest first. */
export function childrenOf(turns: Turns): Map<string, Turn[]> {
  const children = new Map<string, Turn[]>();
  for (const turn of turns.values()) {
    const siblings = children.get(turn.parent ?? "");
    if (siblings) siblings.push(turn);
    else children.set(turn.parent ?? "", [turn]);
  }
  for (const siblings of children.values()) siblings.sort((a, b) => a.created_at_ms - b.created_at_ms || (a.id < b.id ? -1 : 1));
  return children;
}

/** Where the branch that begins with this turn was left: newest child first, failures only where nothing else is. */
export function leafOf(children: Map<string, Turn[]>, from: string): string {
  let leaf = from;
  for (;;) {
    const next = children.get(leaf)?.findLast((turn) => turn.status !== "failed");
    if (!next) return leaf;
    leaf = next.id;
  }
}

/** What is shown of a conversation whose header says this: a running turn, else a failed last try, else the head. */
export function tipOf(turns: Turns, head: string | null, running: string | null): string | null {
  if (running && turns.has(running)) return running;
  const newest = childrenOf(turns).get(head ?? "")?.at(-1);
  return newest?.status === "failed" ? newest.id : head;
}

/** Other versions of one moment: of the question (edited), and of the answer to the same question (made again). */
export interface Versions {
  /** The newest turn of each differently worded question, in order; one entry: it was never edited. */
  questions: Turn[];
  /** The turns that ask the same as this one. */
  answers: Turn[];
}

export function versionsOf(siblings: Turn[], shown: Turn): Versions {
  const groups = new Map<string, Turn[]>();
  for (const turn of siblings) {
    const asked = questionOf(turn);
    const group = groups.get(asked);
    if (group) group.push(turn);
    else groups.set(asked, [turn]);
  }
  // a failed answer is no version; a question that only failed is one: nowhere else are its words kept
  const isAnswer = (turn: Turn) => turn.status !== "failed" || turn.id === shown.id;
  const own = groups.get(questionOf(shown)) ?? [shown];
  const questions = [...groups.values()].map((group) => (group === own ? shown : (group.findLast(isAnswer) ?? group.at(-1) ?? shown)));
  return { questions, answers: own.filter(isAnswer) };
}

function questionOf(turn: Turn): string {
  return JSON.stringify(turn.input.map((item) => (item.content ?? []).map((part) => [part.text, part.image_url, part.filename])));
}

/** The user's parts of a turn, as they would be sent again. */
export function contentOf(turn: Turn): Part[] {
  return turn.input
    .filter((item) => item.type === "message" && item.role === "user")
    .flatMap((item) => item.content ?? [])
    .map(({ type, text, image_url, detail, filename, file_data }) => {
      if (type === "input_image") return { type, image_url, detail };
      if (type === "input_file") return { type, filename, file_data };
      return { type: "input_text", text };
    });
}

export function textOf(parts: Part[] | undefined): string {
  return (parts ?? []).map((part) => part.text ?? part.refusal ?? "").join("");
}

/** All that the assistant says in a turn, as markdown. */
export function answerText(turn: Turn): string {
  const messages = turn.output.filter((item) => item.type === "message");
  const whole = messages.filter((item) => item.status !== "incomplete");
  return (whole.length ? whole : messages).map((item) => textOf(item.content)).join("\n\n");
}

/** Markdown as it is read aloud: its words, without its marks. */
export function spoken(markdown: string): string {
  return markdown
    .replace(/```[^\n]*\n?/g, "")
    .replace(/!?\[([^\]]*)\]\([^)]*\)/g, "$1")
    .replace(/^\s*\|?[\s:|-]+\|?\s*$/gm, "")
    .replace(/[*`#>|$\\]+/g, " ")
    .replace(/[^\S\n]+/g, " ")
    .replace(/ ?\n\s*/g, "\n")
    .trim();
}

/** The turn after this event; the same object when the event changes nothing that is shown. */
export function applyEvent(turn: Turn, event: ResponseStreamEvent): Turn {
  switch (event.type) {
    case "response.output_item.added":
    case "response.output_item.done":
      return withItem(turn, event.output_index, () => event.item as Item);
    case "response.content_part.added":
    case "response.content_part.done":
      return withPart(turn, event.output_index, "content", event.content_index, () => event.part as Part);
    case "response.output_text.delta":
      return withPart(turn, event.output_index, "content", event.content_index, (part) => ({
        ...part,
        type: "output_text",
        text: (part?.text ?? "") + event.delta,
      }));
    case "response.refusal.delta":
      return withPart(turn, event.output_index, "content", event.content_index, (part) => ({
        ...part,
        type: "refusal",
        refusal: (part?.refusal ?? "") + event.delta,
      }));
    case "response.reasoning_summary_part.added":
      return withPart(turn, event.output_index, "summary", event.summary_index, () => event.part as Part);
    case "response.reasoning_summary_text.delta":
      return withPart(turn, event.output_index, "summary", event.summary_index, (part) => ({
        type: "summary_text",
        text: (part?.text ?? "") + event.delta,
      }));
    case "response.reasoning_text.delta":
      return withPart(turn, event.output_index, "content", event.content_index, (part) => ({
        type: "reasoning_text",
        text: (part?.text ?? "") + event.delta,
      }));
    case "response.function_call_arguments.delta":
    case "response.mcp_call_arguments.delta":
      return withItem(turn, event.output_index, (item) => ({ ...item, arguments: (item.arguments ?? "") + event.delta }));
    case "response.completed":
    case "response.incomplete":
    case "response.failed": {
      const { response } = event;
      return {
        ...turn,
        status: (response.status ?? "completed") as Status,
        output: response.output as Item[],
        usage: response.usage ?? null,
        error: response.error,
        incomplete_details: response.incomplete_details as Turn["incomplete_details"],
        completed_at: Math.floor(Date.now() / 1000),
      };
    }
    default:
      return turn;
  }
}

function withItem(turn: Turn, index: number, change: (item: Item) => Item): Turn {
  const output = [...turn.output];
  output[index] = change(output[index] ?? { type: "message", content: [] });
  return { ...turn, output };
}

function withPart(
  turn: Turn,
  index: number,
  list: "content" | "summary",
  place: number,
  change: (part: Part | undefined) => Part,
): Turn {
  return withItem(turn, index, (item) => {
    const parts = [...(item[list] ?? [])];
    parts[place] = change(parts[place]);
    return { ...item, [list]: parts };
  });
}

/** A turn as it is known from the first event of its stream. */
export function newTurn(id: string, parent: string | null, model: string, content: Part[], siblings: Turn[]): Turn {
  return {
    id,
    parent,
    status: "in_progress",
    created_at_ms: Math.max(Date.now(), ...siblings.map((turn) => turn.created_at_ms + 1)), // whatever the clocks say
    completed_at: null,
    model,
    input: [{ type: "message", role: "user", content }],
    output: [],
    usage: null,
    error: null,
    incomplete_details: null,
    cost: null,
    first_token_ms: null,
    duration_ms: null,
    notes: [],
  };
}

export function isRunning(turn: Turn | undefined): boolean {
  return turn !== undefined && !isFinal(turn.status);
}
