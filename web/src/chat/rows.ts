/** What the thread shows, line by line: the user's messages and the answers. */

import type { Sending } from "./saved";
import { versionsOf, type Versions } from "./turns";
import type { Item, Part, Turn } from "./types";

export type SendState = "sending" | "waiting" | "refused";

export type Row =
  | {
      kind: "question";
      key: string;
      content: Part[];
      /** Null: not accepted yet. */
      turn: Turn | null;
      versions: Turn[];
      sending: Sending | null;
    }
  | { kind: "answer"; key: string; turn: Turn; versions: Turn[] }
  | { kind: "said"; key: string; role: string; items: Item[] }
  | { kind: "sending"; key: string; sending: Sending; state: SendState; error: unknown };

interface Known {
  turn: Turn;
  siblings: Turn[];
  rows: Row[];
}

/** Makes rows, and gives the same objects again for what has not changed: so React has nothing to do there. */
export class RowMaker {
  #known = new Map<string, Known>();

  /** `keys` are what a turn's rows were called while it was being sent. */
  rows(path: Turn[], children: Map<string, Turn[]>, keys: ReadonlyMap<string, string>): Row[] {
    const rows: Row[] = [];
    for (const turn of path) {
      const siblings = children.get(turn.parent ?? "") ?? [turn];
      let known = this.#known.get(turn.id);
      if (!known || known.turn !== turn || known.siblings !== siblings) {
        known = { turn, siblings, rows: rowsOf(turn, versionsOf(siblings, turn), keys.get(turn.id) ?? turn.id) };
        this.#known.set(turn.id, known);
      }
      rows.push(...known.rows);
    }
    return rows;
  }
}

function rowsOf(turn: Turn, versions: Versions, key: string): Row[] {
  const spoken = turn.input.filter((item) => item.type === "message");
  const isPlain = spoken.every((item) => item.role === "user");
  if (isPlain && (turn.output.length || turn.model)) {
    const content = spoken.flatMap((item) => item.content ?? []);
    const question: Row = { kind: "question", key: `${key}?`, content, turn, versions: versions.questions, sending: null };
    const answer: Row = { kind: "answer", key, turn, versions: versions.answers };
    return content.length ? [question, answer] : [answer];
  }
  // items that a program put there: shown as they are, nothing to edit or to make again
  return spoken.map((item, place) => ({ kind: "said", key: `${key}.${place}`, role: item.role ?? "user", items: [item] }));
}

export function sendingRows(sending: Sending, state: SendState, error: unknown): Row[] {
  return [
    {
      kind: "question",
      key: `${sending.key}?`,
      content: sending.content,
      turn: null,
      versions: [],
      sending,
    },
    { kind: "sending", key: sending.key, sending, state, error },
  ];
}
