/** The list at the left: newest first, page by page; search, rename, pin, and delete with time to think again. */

import { api, isPassing } from "./api";
import { Store } from "./store";
import { tell } from "./tabs";
import type { Conversation } from "./types";

const PAGE = 40;
const UNDO_MS = 7000;
const DELETIONS = "companion.deletions";

export class Conversations extends Store {
  shown: readonly Conversation[] = [];
  hasMore = true;
  isLoading = false;
  isLoaded = false;
  query = "";
  /** What was deleted last and can still be had back. */
  undoable: Conversation | null = null;

  #known = new Map<string, Conversation>();
  #last: string | null = null;
  #found: Set<string> | null = null;
  #searching: AbortController | null = null;
  /** When each deletion becomes real; kept in the browser, so that closing the page does not undo it. */
  #deletions: Record<string, number> = JSON.parse(localStorage.getItem(DELETIONS) ?? "{}") as Record<string, number>;

  constructor() {
    super();
    setInterval(() => void this.#deleteDue(), 1000);
  }

  get(id: string): Conversation | undefined {
    return this.#known.get(id);
  }

  /** The newest page again; what it no longer holds was deleted elsewhere. */
  async refresh(): Promise<void> {
    const page = await api.conversations({ limit: PAGE });
    const oldest = page.has_more ? (page.data.at(-1)?.updated_at ?? 0) : -1;
    const fresh = new Set(page.data.map((each) => each.id));
    for (const [id, known] of this.#known) if (known.updated_at > oldest && !fresh.has(id)) this.#known.delete(id);
    for (const each of page.data) this.#known.set(each.id, each);
    if (!this.isLoaded) {
      this.#last = page.last_id;
      this.hasMore = page.has_more;
      this.isLoaded = true;
    }
    this.#show();
  }

  async loadMore(): Promise<void> {
    if (!this.hasMore || this.isLoading || !this.isLoaded) return;
    this.isLoading = true;
    try {
      const page = await api.conversations({ limit: PAGE, ...(this.#last ? { after: this.#last } : {}) });
      for (const each of page.data) if (!this.#known.has(each.id)) this.#known.set(each.id, each);
      this.#last = page.last_id ?? this.#last;
      this.hasMore = page.has_more;
    } catch (error) {
      if (!isPassing(error)) this.hasMore = false; // the one it would continue behind is gone
    } finally {
      this.isLoading = false;
      this.#show();
    }
  }

  /** Titles here and now; what else the server finds follows. */
  async search(query: string): Promise<void> {
    this.query = query.trim();
    this.#found = null;
    this.#searching?.abort();
    this.#show();
    if (!this.query) return;
    const own = (this.#searching = new AbortController());
    await new Promise((resolve) => setTimeout(resolve, 150));
    if (own.signal.aborted) return;
    const page = await api.conversations({ query: this.query, limit: 100 }).catch(() => null);
    if (own.signal.aborted || !page) return;
    this.#found = new Set(page.data.map((each) => each.id));
    for (const each of page.data) this.#known.set(each.id, each);
    this.#show();
  }

  /** A header that was read elsewhere on the page. */
  take(header: Conversation): void {
    this.#known.set(header.id, header);
    this.#show();
  }

  async rename(id: string, title: string): Promise<void> {
    this.take(await api.updateConversation(id, { title }));
    tell(id);
  }

  async pin(id: string, isPinned: boolean): Promise<void> {
    const metadata = { ...this.#known.get(id)?.metadata };
    delete metadata["pinned"];
    if (isPinned) metadata["pinned"] = "true";
    this.take(await api.updateConversation(id, { metadata }));
    tell(id);
  }

  /** Hidden now, deleted in a while. */
  remove(id: string): void {
    this.#deletions[id] = Date.now() + UNDO_MS;
    this.#keepDeletions();
    this.undoable = this.#known.get(id) ?? null;
    this.#show();
  }

  undo(): string | null {
    const id = this.undoable?.id ?? null;
    if (id) delete this.#deletions[id];
    this.#keepDeletions();
    this.undoable = null;
    this.#show();
    return id;
  }

  async #deleteDue(): Promise<void> {
    const due = Object.keys(this.#deletions).filter((id) => (this.#deletions[id] ?? Infinity) <= Date.now());
    for (const id of due) {
      const until = this.#deletions[id] ?? 0;
      this.#deletions[id] = Infinity; // on its way
      if (this.undoable?.id === id) {
        this.undoable = null;
        this.changed();
      }
      try {
        await api.deleteConversation(id);
      } catch (error) {
        if (isPassing(error)) {
          this.#deletions[id] = until;
          continue;
        }
      }
      delete this.#deletions[id];
      this.#known.delete(id);
      this.#keepDeletions();
      tell(id);
    }
  }

  #keepDeletions(): void {
    localStorage.setItem(DELETIONS, JSON.stringify(this.#deletions));
  }

  #show(): void {
    const words = this.query.toLowerCase();
    this.shown = [...this.#known.values()]
      .filter((each) => !(each.id in this.#deletions))
      .filter((each) => !words || (each.title ?? "").toLowerCase().includes(words) || this.#found?.has(each.id))
      .sort((a, b) => b.updated_at - a.updated_at || (a.id < b.id ? 1 : -1));
    this.changed();
  }
}

export function isPinned(conversation: Conversation): boolean {
  return conversation.metadata["pinned"] === "true";
}
