import { useStore } from "../chat/store";
import type { Thread } from "../chat/thread";
import type { Turn } from "../chat/types";
import { say, useWords } from "../words";
import { Left, Right } from "./icons";
import { complain } from "./Toasts";

/** The way between versions of one message: ‹ 2/3 ›. */
export function Versions({ thread, versions, shown }: { thread: Thread; versions: Turn[]; shown: Turn }) {
  const words = useWords();
  const isBusy = useStore(thread, (store) => store.isBusy);
  if (versions.length < 2) return null;
  const place = versions.findIndex((turn) => turn.id === shown.id);
  const step = (turn: Turn | undefined) => turn && thread.switchTo(turn).catch(() => complain(say("failed")));
  return (
    <span className="versions" role="group" aria-label={words("version", { place: place + 1, count: versions.length })}>
      <button
        type="button"
        className="quiet"
        aria-label={words("versionPrevious")}
        disabled={isBusy || place === 0}
        onClick={() => step(versions[place - 1])}
      >
        <Left />
      </button>
      <span aria-hidden="true">
        {place + 1}/{versions.length}
      </span>
      <button
        type="button"
        className="quiet"
        aria-label={words("versionNext")}
        disabled={isBusy || place === versions.length - 1}
        onClick={() => step(versions[place + 1])}
      >
        <Right />
      </button>
    </span>
  );
}
