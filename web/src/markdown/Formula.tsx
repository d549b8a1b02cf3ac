/** A formula; KaTeX, its styles and its fonts are fetched with the first one. */

import { useEffect, useRef } from "react";

import { useWords } from "../words";

export function Formula({ tex, isDisplay }: { tex: string; isDisplay: boolean }) {
  const words = useWords();
  const place = useRef<HTMLSpanElement>(null);
  useEffect(() => {
    let isCurrent = true;
    void import("./katex").then(({ render }) => {
      if (isCurrent && place.current) render(tex, place.current, isDisplay);
    });
    return () => {
      isCurrent = false;
    };
  }, [tex, isDisplay]);
  return (
    <span className={isDisplay ? "formula display" : "formula"} dir="ltr" tabIndex={isDisplay ? 0 : undefined}
      role={isDisplay ? "group" : undefined} aria-label={isDisplay ? words("math") : undefined}>
      <span ref={place}>{tex}</span>
    </span>
  );
}
