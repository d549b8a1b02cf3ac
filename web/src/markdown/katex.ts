/** Fetched on demand. `render` builds elements and sets their styles by script, which a strict policy allows. */

import katex from "katex";
import "katex/dist/katex.min.css";

export function render(tex: string, place: HTMLElement, isDisplay: boolean): void {
  try {
    katex.render(tex, place, {
      displayMode: isDisplay,
      throwOnError: true,
      trust: false, // no links, no images, no classes from an answer
      strict: "ignore",
      maxExpand: 500,
      maxSize: 20,
    });
  } catch {
    place.textContent = tex; // half written, or not a formula after all
  }
}
