/**
 * Markdown that grows: what is closed is never read again.
 *
 * The text is split into top-level blocks. Only the last one can still change, so a new piece of an answer costs the
 * reading of one block, however long the answer is.
 */

import { Lexer, Marked, type Token, type TokensList } from "marked";

import { mathExtensions } from "./math";

const { defaults } = new Marked({ gfm: true }).use({ extensions: mathExtensions });

export class Blocks {
  #text = "";
  #closed: Token[] = [];
  /** Where in the text the first open block begins. */
  #start = 0;
  #links: TokensList["links"] = {};
  #shown: readonly Token[] = [];

  /** The blocks of this text. Those that did not change are the same objects as before. */
  read(text: string): readonly Token[] {
    const clean = text.includes("\r") ? text.replace(/\r\n?/g, "\n") : text;
    if (clean === this.#text) return this.#shown;
    if (!clean.startsWith(this.#text)) this.#forget();
    this.#text = clean;
    const tokens = this.#lex(clean.slice(this.#start));
    const open = tokens.findLastIndex((token) => token.type !== "space");
    for (const token of tokens.slice(0, Math.max(open, 0))) {
      if (!clean.startsWith(token.raw, this.#start)) break; // the lexer rewrote it: keep it open
      this.#start += token.raw.length;
      if (isShown(token)) this.#closed.push(token);
      tokens.shift();
    }
    this.#shown = [...this.#closed, ...tokens.filter(isShown)];
    return this.#shown;
  }

  #lex(text: string): Token[] {
    const lexer = new Lexer(defaults);
    lexer.tokens.links = this.#links; // references may be defined anywhere before
    return [...lexer.lex(text)];
  }

  #forget(): void {
    this.#closed = [];
    this.#start = 0;
    this.#links = {};
  }
}

function isShown(token: Token): boolean {
  return token.type !== "space" && token.type !== "def";
}
