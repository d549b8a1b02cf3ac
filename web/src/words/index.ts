/** The page's words: one file per language, English built in, others fetched when they are wanted. */

import { Store, useStore } from "../chat/store";
import english from "./en.json";

export type Word = keyof typeof english;
type Words = Record<Word, string>;

const SAVED = "companion.language";

/** A new language is a new file and a line here. */
const OTHERS: Record<string, () => Promise<{ default: Words }>> = { de: () => import("./de.json") };
const RIGHT_TO_LEFT = new Set(["ar", "fa", "he", "ur"]);

export const LANGUAGES: Record<string, string> = { en: "English", de: "Deutsch" };

class Dictionary extends Store {
  language = "en";
  words: Words = english;

  /** The user's choice; null: what the browser asks for. */
  get chosen(): string | null {
    return localStorage.getItem(SAVED);
  }

  async choose(language: string | null): Promise<void> {
    if (language) localStorage.setItem(SAVED, language);
    else localStorage.removeItem(SAVED);
    await this.load();
  }

  async load(): Promise<void> {
    const wanted = this.chosen ? [this.chosen] : navigator.languages;
    const known = wanted.map((each) => each.split("-")[0] ?? "en").find((each) => each in LANGUAGES) ?? "en";
    const words = await OTHERS[known]?.().catch(() => null);
    this.language = words ? known : "en";
    this.words = words?.default ?? english;
    document.documentElement.lang = this.language;
    document.documentElement.dir = RIGHT_TO_LEFT.has(this.language) ? "rtl" : "ltr";
    this.changed();
  }
}

export const dictionary = new Dictionary();

/** The words for a key, its {blanks} filled. */
export function say(key: Word, blanks: Record<string, string | number> = {}): string {
  return dictionary.words[key].replace(/\{(\w+)\}/g, (_, name: string) => String(blanks[name] ?? ""));
}

/** `say`, and the component is rendered again when the language changes. */
export function useWords(): typeof say {
  useStore(dictionary, (store) => store.words);
  return say;
}

export function number(value: number, options?: Intl.NumberFormatOptions): string {
  return new Intl.NumberFormat(dictionary.language, options).format(value);
}
