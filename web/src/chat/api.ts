/** The one way to the server: the stock `openai` client, and Companion's own resources through the same client. */

import OpenAI, { APIConnectionError, APIError } from "openai";
import type { ResponseStreamEvent } from "openai/resources/responses/responses";

import { connection } from "./connection";
import { forgetEverything } from "./saved";
import { Store } from "./store";
import type { Conversation, Model, Page, Part, Share, SharedConversation, Trace, Turn } from "./types";

const SAVED_KEY = "companion.key";
/** A 429 that no waiting helps. */
export const SPENT = "insufficient_quota";

/** Whether the server wants a key that it was not given. */
class Session extends Store {
  needsKey = false;
  wasRefused = false;

  get key(): string | null {
    return localStorage.getItem(SAVED_KEY);
  }

  /** The server answered 401. */
  refuse(): void {
    this.wasRefused = this.key !== null;
    this.needsKey = true;
    this.changed();
  }

  enter(key: string): void {
    localStorage.setItem(SAVED_KEY, key);
    location.reload();
  }

  async leave(): Promise<void> {
    await forgetEverything().catch(() => {});
    location.assign("/");
  }
}

export const session = new Session();

async function watchedFetch(url: string | URL | Request, init?: RequestInit): Promise<Response> {
  try {
    const response = await fetch(url, init);
    connection.report(true);
    if (response.status === 401) session.refuse();
    return response;
  } catch (error) {
    if (!init?.signal?.aborted) connection.report(false);
    throw error;
  }
}

const client = new OpenAI({
  apiKey: session.key ?? "local",
  baseURL: `${location.origin}/v1`,
  dangerouslyAllowBrowser: true, // the key, if any, is the user's own
  fetch: watchedFetch,
  maxRetries: 1,
});

/** What is sent, and sent again with the same key until its fate is known. The body never changes in between. */
export interface Send {
  key: string;
  conversation: string;
  parent: string | null;
  model: string;
  content: Part[];
}

export const api = {
  async models(): Promise<Model[]> {
    return (await client.get<Page<Model>>("/models")).data;
  },

  conversations(
    query: { after?: string; query?: string; pinned?: boolean; limit?: number },
    signal?: AbortSignal,
  ): Promise<Page<Conversation>> {
    return client.get("/conversations", { query, ...(signal ? { signal } : {}) });
  },

  conversation(id: string): Promise<Conversation> {
    return client.get(`/conversations/${id}`);
  },

  createConversation(key: string): Promise<Conversation> {
    return client.post("/conversations", { body: {}, headers: { "Idempotency-Key": key } });
  },

  updateConversation(
    id: string,
    change: { title?: string; head?: string; pinned?: boolean },
  ): Promise<Conversation> {
    return client.post(`/conversations/${id}`, { body: change });
  },

  deleteConversation(id: string): Promise<unknown> {
    return client.delete(`/conversations/${id}`);
  },

  restoreConversation(id: string): Promise<Conversation> {
    return client.post(`/conversations/${id}/restore`);
  },

  turns(id: string, query: { after?: string; order: "asc" | "desc"; limit: number }): Promise<Page<Turn>> {
    return client.get(`/conversations/${id}/turns`, { query });
  },

  /** A new turn, streamed. With the same key it joins the turn that was begun under that key. */
  send(send: Send, signal: AbortSignal): Promise<AsyncIterable<ResponseStreamEvent>> {
    return client.responses.create(
      {
        model: send.model,
        input: [{ type: "message", role: "user", content: send.content as never }],
        // `parent` is Companion's: which turn this one continues
        conversation: { id: send.conversation, parent: send.parent } as { id: string },
        stream: true,
      },
      { headers: { "Idempotency-Key": send.key }, maxRetries: 0, signal },
    );
  },

  /** The rest of a turn's stream, from anywhere, any time. */
  follow(id: string, after: number, signal: AbortSignal): Promise<AsyncIterable<ResponseStreamEvent>> {
    return client.responses.retrieve(
      id,
      { stream: true, ...(after >= 0 ? { starting_after: after } : {}) },
      { maxRetries: 0, signal },
    );
  },

  trace(id: string): Promise<Trace> {
    return client.get(`/responses/${id}/trace`);
  },

  /** A link to what the conversation shows now. */
  share(conversation: string): Promise<Share> {
    return client.post("/shares", { body: { conversation } });
  },

  /** The links of a conversation that work, newest first. */
  async shares(conversation: string): Promise<Share[]> {
    return (await client.get<Page<Share>>("/shares", { query: { conversation, limit: 100 } })).data;
  },

  revokeShare(id: string): Promise<unknown> {
    return client.delete(`/shares/${id}`);
  },

  /** Null where the link shows nothing any more. */
  async shared(id: string): Promise<SharedConversation | null> {
    const response = await fetch(`/v1/shared/${encodeURIComponent(id)}`);
    if (response.ok) return (await response.json()) as SharedConversation;
    if (response.status === 404) return null;
    throw new Error(`The share could not be read: ${response.status}`);
  },

  cancel(id: string): Promise<unknown> {
    return client.responses.cancel(id);
  },
};

/** The server was not reached, or could not answer for now: the same request may be sent again. */
export function isPassing(error: unknown): boolean {
  if (error instanceof APIConnectionError) return true;
  if (codeOf(error) === SPENT) return false;
  return error instanceof APIError && (error.status === undefined || error.status >= 500 || error.status === 429);
}

export function statusOf(error: unknown): number | undefined {
  return error instanceof APIError ? error.status : undefined;
}

export function codeOf(error: unknown): string | null {
  return error instanceof APIError ? (error.code ?? null) : null;
}

export function messageOf(error: unknown): string {
  if (error instanceof APIError) {
    const body = error.error as { message?: string } | undefined;
    return body?.message ?? error.message;
  }
  return error instanceof Error ? error.message : String(error);
}
