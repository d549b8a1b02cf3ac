/** The smallest store that React can read: change something, say so. */

import { useSyncExternalStore } from "react";

export class Store {
  #listeners = new Set<() => void>();
  #frame = 0;

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  /** Tell everybody now. */
  protected changed(): void {
    for (const listener of this.#listeners) listener();
  }

  /** Tell everybody once before the next frame, however often this is called; at once where nothing is painted. */
  protected changedSoon(): void {
    if (document.hidden) {
      this.changed();
      return;
    }
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.changed();
    });
  }
}

/** What `read` gives must be the same object as long as nothing changed. */
export function useStore<S extends Store, T>(store: S, read: (store: S) => T): T {
  return useSyncExternalStore(store.subscribe, () => read(store));
}
