/** The list at the left: newest first, page by page; search, rename, pin, and delete with undo. */

import { api, isPassing } from "./api";
import { Store } from "./store";
import { tell } from "./tabs";
import type { Conversation } from "./types";

const PAGE = 40;
const UNDO_MS = 8000;
const PAUSE_MS = 150;
/** Requests of one search: each looks at 200 conversations. */
const MOST_SEARCHES = 20;

export class Conversations extends Store {
  shown: readonly Conversation[] = [];
  hasMore = true;
  isLoading = false;
  isLoaded = false;
  query = "";
  isSearching = false;
  /** The server could not be asked, or not to the end: what is shown is what is known here. */
  isSearchCut = false;
  /** What was deleted last and can still be had back with a click. */
  undoable: Conversation | null = null;
  /** Called with a header that was changed here: an open conversation has its own copy. */
  onChanged: (header: Conversation) => void = () => {};

  #known = new Map<string, Conversation>();
  #last: string | null = null;
  #found: Conversation[] = [];
  #searching: AbortController | null = null;
  #deleted = new Set<string>();
  #undoTimer = 0;

  /** The newest page and what is pinned again; what is no longer in them was deleted elsewhere. */
  async refresh(): Promise<void> {
    const [page, pinned] = await Promise.all([
      api.conversations({ limit: PAGE }),
      api.conversations({ limit: 100, pinned: true }),
    ]);
    const oldest = page.has_more ? (page.data.at(-1)?.updated_at ?? 0) : -1;
    const fresh = new Set([...page.data, ...pinned.data].map((each) => each.id));
    for (const [id, known] of this.#known) {
      if ((known.updated_at > oldest || known.pinned) && !fresh.has(id)) this.#known.delete(id);
    }
    for (const each of [...pinned.data, ...page.data]) this.#known.set(each.id, each);
    if (!this.isLoaded) {
      this.#last = page.last_id;
      this.hasMore = page.has_more;
      this.isLoaded = true;
    }
    this.#show();
  }

  async loadMore(): Promise<void> {
    if (!this.hasMore || this.isLoading || !this.isLoaded || this.query) return;
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

  /** Titles at once, from here; then what the server finds, in titles and texts. */
  async search(query: string): Promise<void> {
    this.query = query.trim();
    this.#found = [];
    this.#searching?.abort();
    const own = (this.#searching = new AbortController());
    this.isSearching = this.query !== "";
    this.isSearchCut = false;
    this.#show();
    if (!this.query) return;
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    let after: string | null = null;
    for (let asked = 0; asked < MOST_SEARCHES && !own.signal.aborted; asked += 1) {
      const place: { after?: string } = after ? { after } : {};
      const page = await api.conversations({ query: this.query, limit: 50, ...place }, own.signal).catch(() => null);
      if (own.signal.aborted) return;
      this.isSearchCut = page === null;
      this.#found = [...this.#found, ...(page?.data ?? [])];
      after = page?.next_after ?? null;
      if (!page?.has_more || !after) break;
      this.#show();
    }
    this.isSearching = false;
    this.#show();
  }

  /** The connection is back: what could not be asked is asked now. */
  async searchAgain(): Promise<void> {
    if (this.isSearchCut) await this.search(this.query);
  }

  /** A header that was read elsewhere on the page. */
  take(header: Conversation): void {
    this.#known.set(header.id, header);
    this.#found = this.#found.map((each) => (each.id === header.id ? { ...each, ...header } : each));
    this.#show();
  }

  async rename(id: string, title: string): Promise<void> {
    this.#changed(await api.updateConversation(id, { title }));
  }

  async pin(id: string, pinned: boolean): Promise<void> {
    this.#changed(await api.updateConversation(id, { pinned }));
  }

  #changed(header: Conversation): void {
    this.take(header);
    this.onChanged(header);
    tell(header.id);
  }

  /** Gone at once; the server keeps it for some days, and for some seconds so does a button. */
  async remove(id: string): Promise<void> {
    const header = this.shown.find((each) => each.id === id) ?? null;
    this.#deleted.add(id);
    this.#show();
    try {
      await api.deleteConversation(id);
    } catch (error) {
      this.#deleted.delete(id);
      this.#show();
      throw error;
    }
    tell(id);
    this.#offerUndo(header);
  }

  /** Have back what was deleted last. */
  async undo(): Promise<string | null> {
    const header = this.undoable;
    if (!header) return null;
    this.#offerUndo(null);
    const restored = await api.restoreConversation(header.id).catch((error: unknown) => {
      this.#offerUndo(header);
      throw error;
    });
    this.#deleted.delete(header.id);
    this.take(restored);
    tell(header.id);
    return header.id;
  }

  #offerUndo(header: Conversation | null): void {
    clearTimeout(this.#undoTimer);
    this.undoable = header;
    if (header) this.#undoTimer = window.setTimeout(() => this.#offerUndo(null), UNDO_MS);
    this.changed();
  }

  #show(): void {
    const words = this.query.toLowerCase();
    const hits = new Map(this.#found.map((each) => [each.id, each]));
    if (words) {
      for (const each of this.#known.values()) {
        if (!hits.has(each.id) && (each.title ?? "").toLowerCase().includes(words)) hits.set(each.id, each);
      }
    }
    this.shown = [...(words ? hits : this.#known).values()]
      .filter((each) => !this.#deleted.has(each.id))
      .sort((a, b) => b.updated_at - a.updated_at || (a.id < b.id ? 1 : -1));
    this.changed();
  }
}
