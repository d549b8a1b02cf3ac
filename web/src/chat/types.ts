/** What Companion's API says, as far as the page reads it. */

export interface Page<T> {
  data: T[];
  /** Of a search: where it goes on; it need not have found anything up to there. */
  next_after?: string | null;
  has_more: boolean;
  last_id: string | null;
}

export interface Conversation {
  id: string;
  created_at: number;
  updated_at: number;
  metadata: Record<string, string>;
  /** Null until one was made, shortly after the first answer. */
  title: string | null;
  /** The last turn of the branch that is shown and continued. */
  head: string | null;
  /** The response that is being made right now. */
  running: string | null;
  pinned: boolean;
  /** Of a search: where its words were found. */
  match?: { in: "title" | "text"; response: string | null; snippet: string };
}

export type Status = "queued" | "in_progress" | "completed" | "incomplete" | "failed" | "cancelled";

/** One request answered: the user's words and what came of them. */
export interface Turn {
  id: string;
  /** The turn it continues; siblings are versions of the same moment. */
  parent: string | null;
  status: Status;
  created_at_ms: number;
  completed_at: number | null;
  model: string;
  input: Item[];
  output: Item[];
  usage: Usage | null;
  error: { code?: string | null; message: string } | null;
  incomplete_details: { reason: string } | null;
  /** In dollars; null as long as it is not known. */
  cost: number | null;
  first_token_ms: number | null;
  duration_ms: number | null;
  notes: string[];
}

export interface Usage {
  input_tokens: number;
  output_tokens: number;
}

export interface Item {
  id?: string;
  type: string;
  status?: string;
  role?: string;
  content?: Part[];
  summary?: Part[];
  name?: string;
  arguments?: string;
  input?: string;
  output?: unknown;
  error?: unknown;
}

export interface Part {
  type: string;
  text?: string;
  refusal?: string;
  image_url?: string;
  detail?: string;
  filename?: string;
  file_data?: string;
}

export interface Model {
  id: string;
  owned_by: string;
}

export function isFinal(status: Status): boolean {
  return status !== "queued" && status !== "in_progress";
}
