import { useEffect, useState } from "react";

import { useWords } from "../words";
import { announce } from "./live";
import { Check, Copy } from "./icons";

export function CopyButton({ text, label }: { text: string | (() => string); label: string }) {
  const words = useWords();
  const [isDone, setDone] = useState(false);
  useEffect(() => {
    if (!isDone) return;
    const timer = setTimeout(() => setDone(false), 1800);
    return () => clearTimeout(timer);
  }, [isDone]);

  async function copy(): Promise<void> {
    await put(typeof text === "string" ? text : text());
    setDone(true);
    announce(words("copied"));
  }

  return (
    <button type="button" className="quiet" aria-label={label} title={isDone ? words("copied") : label} onClick={() => void copy()}>
      {isDone ? <Check /> : <Copy />}
    </button>
  );
}

/** The clipboard is offered to secure pages only; the old way works on the others. */
async function put(text: string): Promise<void> {
  if ("clipboard" in navigator) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
