/** Formulas in markdown: `$…$`, `$$…$$`, `\(…\)` and `\[…\]`, but not prices. */

import type { TokenizerAndRendererExtension } from "marked";

export interface MathToken {
  type: "math";
  raw: string;
  tex: string;
  isDisplay: boolean;
}

// An opening dollar is followed by no space, a closing one follows none and no digit comes after it: "$5 and $10" is text.
const INLINE = /^(?:\$\$([^$]+?)\$\$|\$(?![\s$])((?:\\[\s\S]|[^\\$\n]|\n(?!\n))+?)(?<![\s\\])\$(?!\d)|\\\(([\s\S]+?)\\\))/;
const BLOCK = /^ {0,3}(?:\$\$\s*([\s\S]+?)\s*\$\$|\\\[\s*([\s\S]+?)\s*\\\]) *(?:\n+|$)/;

export const mathExtensions: TokenizerAndRendererExtension[] = [
  {
    name: "math",
    level: "inline",
    start: (src) => {
      const place = src.search(/\$|\\\(/);
      return place < 0 ? undefined : place;
    },
    tokenizer(src): MathToken | undefined {
      const found = INLINE.exec(src);
      if (!found) return undefined;
      const [raw, display, dollars, parentheses] = found;
      return { type: "math", raw, tex: (display ?? dollars ?? parentheses ?? "").trim(), isDisplay: display !== undefined };
    },
  },
  {
    name: "mathBlock",
    level: "block",
    start: (src) => {
      const place = src.search(/^ {0,3}(?:\$\$|\\\[)/m);
      return place < 0 ? undefined : place;
    },
    tokenizer(src): MathToken | undefined {
      const found = BLOCK.exec(src);
      if (!found) return undefined;
      const [raw, dollars, brackets] = found;
      return { type: "math", raw, tex: dollars ?? brackets ?? "", isDisplay: true };
    },
  },
];
