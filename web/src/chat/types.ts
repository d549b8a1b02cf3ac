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

/** Why an answer is as it is; times in milliseconds since the request was taken up, context in estimated tokens. */
export interface Trace {
  model: string | null;
  deployment: string | null;
  prompt_version: string | null;
  flags: Record<string, string>;
  guardrails?: string[];
  calls: TracedCall[];
  tools: { name: string; ms: number; failed: boolean }[];
  timings: Record<string, number | null>;
  usage: (Usage & { input_tokens_details?: { cached_tokens: number } }) | null;
  cost: number;
  storage: { request_charge: number | null };
  context: Record<string, number>;
  attempt: number;
  notes: string[];
}

export interface TracedCall {
  deployment: string;
  reason: string;
  outcome?: string;
  skipped?: string;
  error?: string;
  ms?: number;
}

export interface Share {
  id: string;
  created_at: number;
}

/** What anybody with the link sees. */
export interface SharedConversation {
  title: string | null;
  created_at: number;
  items: { role: "user" | "assistant"; text: string }[];
}

export interface Model {
  id: string;
  owned_by: string;
}

export function isFinal(status: Status): boolean {
  return status !== "queued" && status !== "in_progress";
}
