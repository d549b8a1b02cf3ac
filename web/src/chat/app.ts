/** The page's state in one place: which conversation is open, the list, the models, and what is left to send. */

import { api, session } from "./api";
import { connection } from "./connection";
import { Conversations } from "./conversations";
import { outbox, type Sending } from "./saved";
import { Store } from "./store";
import { hear } from "./tabs";
import { Thread } from "./thread";

const MODEL = "companion.model";
const LOOK_EVERY = 20_000;
/** The server remembers the key of a send for a day. */
const KEY_LIVES_MS = 20 * 3600_000;

class App extends Store {
  readonly conversations = new Conversations();
  thread: Thread = this.#newThread(null);
  models: readonly string[] = [];
  model = localStorage.getItem(MODEL) ?? "companion";

  #threads = new Map<string, Thread>();

  async start(): Promise<void> {
    addEventListener("popstate", () => this.#route());
    hear((id) => this.#changedElsewhere(id));
    this.conversations.onChanged = (header) => this.#threads.get(header.id)?.take(header);
    document.addEventListener("visibilitychange", () => this.#look());
    addEventListener("focus", () => this.#look());
    addEventListener("online", () => this.#look());
    addEventListener("pageshow", (event) => event.persisted && this.#look());
    setInterval(() => this.#look(), LOOK_EVERY);
    connection.subscribe(() => {
      if (connection.reach !== "online") return;
      if (!this.conversations.isLoaded) this.#load();
      void this.conversations.searchAgain();
    });
    this.#route();
    this.#load();
    for (const message of await outbox.all().catch(() => [])) void this.#deliver(message);
  }

  /** Show this conversation; null: a new one. */
  go(id: string | null): void {
    const path = id ? `/c/${id}` : "/";
    if (location.pathname !== path) history.pushState(null, "", path);
    this.#route();
  }

  choose(model: string): void {
    this.model = model;
    localStorage.setItem(MODEL, model);
    this.changed();
  }

  /** Delete a conversation, with time to think again. */
  async remove(id: string): Promise<void> {
    await this.conversations.remove(id);
    this.#threads.delete(id);
    if (this.thread.id === id) this.go(null);
  }

  #load(): void {
    this.conversations.refresh().catch(ignore);
    api
      .models()
      .then((models) => {
        this.models = models.map((model) => model.id);
        if (!this.models.includes(this.model)) this.model = this.models[0] ?? this.model;
        this.changed();
      })
      .catch(ignore);
  }

  #route(): void {
    const id = /^\/c\/([^/]+)\/?$/.exec(location.pathname)?.[1] ?? null;
    if (this.thread.id === id && (id !== null || !this.thread.sending)) {
      if (id === null || this.#threads.has(id)) {
        this.thread.open();
        this.changed();
        return;
      }
    }
    this.thread.close();
    this.thread = id ? this.#threadOf(id) : this.#newThread(null);
    this.thread.open();
    this.changed();
  }

  #threadOf(id: string): Thread {
    const known = this.#threads.get(id);
    if (known) return known;
    const thread = this.#newThread(id);
    this.#threads.set(id, thread);
    return thread;
  }

  #newThread(id: string | null): Thread {
    const thread = new Thread(id);
    thread.onTouched = (touched) => this.#touched(touched);
    return thread;
  }

  /** A thread learned its header, perhaps its very id. */
  #touched(thread: Thread): void {
    if (thread.id && !this.#threads.has(thread.id)) {
      this.#threads.set(thread.id, thread);
      if (thread === this.thread) {
        history.replaceState(null, "", `/c/${thread.id}`);
        this.changed();
      }
    }
    if (thread.header) this.conversations.take(thread.header);
  }

  /** What was left when the page was closed is sent now, once, by one of the tabs. */
  async #deliver(message: Sending): Promise<void> {
    const thread = message.conversation ? this.#threadOf(message.conversation) : this.#emptyThread();
    await thread.refresh();
    if (Date.now() - message.at > KEY_LIVES_MS) thread.hold(message);
    else await thread.deliver(message);
  }

  #emptyThread(): Thread {
    return !this.thread.id && !this.thread.sending ? this.thread : this.#newThread(null);
  }

  #changedElsewhere(id: string): void {
    this.conversations.refresh().catch(ignore);
    if (this.thread.id === id) void this.thread.refresh();
  }

  #look(): void {
    if (document.hidden || session.needsKey) return;
    this.conversations.refresh().catch(ignore);
    if (this.thread.id) void this.thread.refresh();
  }
}

/** For a look that will be repeated: the connection is reported where it is noticed. */
function ignore(): void {}

export const app = new App();
