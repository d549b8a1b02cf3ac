/** A block of code: its language, a button that copies it, and colours as soon as they are there. */

import { type ReactNode, useEffect, useRef, useState } from "react";

import { CopyButton } from "../ui/CopyButton";
import { useWords } from "../words";

/** Longer code keeps one colour: colouring it again with each word would cost more than it shows. */
const MOST_LIVE = 20_000;
const MOST = 200_000;
const EVERY_MS = 150;

export function CodeBlock({ code, language }: { code: string; language: string }) {
  const words = useWords();
  const coloured = useColours(code, language);
  return (
    <figure className="code" dir="ltr">
      <figcaption>
        <span>{language || words("code")}</span>
        <CopyButton text={code} label={words("copyCode")} />
      </figcaption>
      <pre tabIndex={0} aria-label={language ? words("codeOf", { language }) : words("code")}>
        <code>
          {coloured && code.startsWith(coloured.code) ? coloured.elements : null}
          {coloured && code.startsWith(coloured.code) ? code.slice(coloured.code.length) : code}
        </code>
      </pre>
    </figure>
  );
}

interface Coloured {
  code: string;
  elements: ReactNode;
}

/** The colours of the code as it was a moment ago; what came since is shown plain until the next look. */
function useColours(code: string, language: string): Coloured | null {
  const [coloured, setColoured] = useState<Coloured | null>(null);
  const newest = useRef(code);
  const timer = useRef(0);
  newest.current = code;
  useEffect(() => {
    if (!language || timer.current || coloured?.code === code) return;
    const wait = !coloured ? 0 : code.length > MOST_LIVE ? 1000 : EVERY_MS;
    timer.current = window.setTimeout(() => {
      timer.current = 0;
      const now = newest.current;
      if (now.length > MOST) return;
      void import("./highlight").then(({ highlight }) => {
        const elements = highlight(now, language);
        if (elements) setColoured({ code: now, elements });
      });
    }, wait);
  }, [code, language, coloured]);
  useEffect(() => () => clearTimeout(timer.current), []);
  return coloured;
}
