/** Whether the server can be reached, and how long to wait before trying again. */

import { Store } from "./store";

export type Reach = "online" | "offline" | "unreachable";

class Connection extends Store {
  #isUnreachable = false;
  #wakers = new Set<() => void>();

  constructor() {
    super();
    addEventListener("online", () => this.#wake());
    addEventListener("offline", () => this.changed());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.#wake();
    });
  }

  get reach(): Reach {
    if (!navigator.onLine) return "offline";
    return this.#isUnreachable ? "unreachable" : "online";
  }

  /** A request got through, or did not. */
  report(isReached: boolean): void {
    if (isReached === !this.#isUnreachable) return;
    this.#isUnreachable = !isReached;
    if (isReached) this.#wake();
    else this.changed();
  }

  /** Resolves after a growing pause, or as soon as there is reason to hope. */
  async pause(attempt: number, signal?: AbortSignal): Promise<void> {
    const limit = navigator.onLine ? Math.min(250 * 2 ** attempt, 8000) : 60_000;
    const jittered = limit * (0.75 + Math.random() / 4);
    await new Promise<void>((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.#wakers.delete(done);
        signal?.removeEventListener("abort", done);
        resolve();
      };
      const timer = setTimeout(done, jittered);
      this.#wakers.add(done);
      signal?.addEventListener("abort", done);
      if (signal?.aborted) done();
    });
  }

  #wake(): void {
    for (const wake of [...this.#wakers]) wake();
    this.changed();
  }
}

export const connection = new Connection();
