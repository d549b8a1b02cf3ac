/** What must survive a closed page: drafts, attachments of drafts, and sends whose fate is not known. */

import type { Part } from "./types";

/** A message on its way: kept until the server has accepted it. */
export interface Sending {
  /** Also the `Idempotency-Key`: sent twice, it is one turn. */
  key: string;
  /** Null in a conversation that does not exist yet. */
  conversation: string | null;
  parent: string | null;
  model: string;
  content: Part[];
  at: number;
}

export interface DraftFile {
  id: string;
  name: string;
  type: string;
  /** A data: URL. */
  data: string;
}

/** A name that nobody else has; `randomUUID` is missing where the page comes over plain HTTP from another machine. */
export function newKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const DRAFT = "companion.draft.";

export const drafts = {
  /** `where` is a conversation's id, "new", or the turn that is being edited. */
  text(where: string): string {
    return localStorage.getItem(DRAFT + where) ?? "";
  },

  keep(where: string, text: string): void {
    try {
      if (text) localStorage.setItem(DRAFT + where, text);
      else localStorage.removeItem(DRAFT + where);
    } catch {
      // full: a draft of megabytes stays in the page only
    }
  },

  /** A conversation that was new has an id now. */
  async move(from: string, to: string): Promise<void> {
    drafts.keep(to, drafts.text(from));
    drafts.keep(from, "");
    const files = await drafts.files(from);
    if (!files.length) return;
    await drafts.keepFiles(to, files);
    await drafts.keepFiles(from, []);
  },

  async files(where: string): Promise<DraftFile[]> {
    return (await request<DraftFile[] | undefined>("files", "readonly", (store) => store.get(where))) ?? [];
  },

  async keepFiles(where: string, files: DraftFile[]): Promise<void> {
    await request("files", "readwrite", (store) => (files.length ? store.put(files, where) : store.delete(where)));
  },
};

export const outbox = {
  all: (): Promise<Sending[]> => request("sends", "readonly", (store) => store.getAll()),
  put: (sending: Sending): Promise<unknown> => request("sends", "readwrite", (store) => store.put(sending, sending.key)),
  drop: (key: string): Promise<unknown> => request("sends", "readwrite", (store) => store.delete(key)),
};

/** Nothing of this user stays in this browser. */
export async function forgetEverything(): Promise<void> {
  for (const name of Object.keys(localStorage)) if (name.startsWith("companion.")) localStorage.removeItem(name);
  (await database()).close();
  indexedDB.deleteDatabase("companion");
}

let opened: Promise<IDBDatabase> | undefined;

function database(): Promise<IDBDatabase> {
  opened ??= new Promise((resolve, reject) => {
    const opening = indexedDB.open("companion", 1);
    opening.onupgradeneeded = () => {
      opening.result.createObjectStore("sends");
      opening.result.createObjectStore("files");
    };
    opening.onsuccess = () => {
      opening.result.onversionchange = () => {
        // another tab forgets everything, and would wait for this one: as would every message it sends after that
        opening.result.close();
        opened = undefined;
      };
      resolve(opening.result);
    };
    opening.onerror = () => reject(opening.error);
  });
  return opened;
}

async function request<T>(
  name: "sends" | "files",
  mode: IDBTransactionMode,
  ask: (store: IDBObjectStore) => IDBRequest,
): Promise<T> {
  const transaction = (await database()).transaction(name, mode);
  const asked = ask(transaction.objectStore(name));
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(asked.result as T);
    transaction.onerror = transaction.onabort = () => reject(transaction.error);
  });
}
