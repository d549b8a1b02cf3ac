import { app } from "../chat/app";
import type { Thread } from "../chat/thread";
import { useWords } from "../words";

const SUGGESTIONS = [1, 2, 3, 4] as const;

/** A new conversation: a greeting, and ways to begin. */
export function Welcome({ thread }: { thread: Thread }) {
  const words = useWords();
  return (
    <div className="welcome">
      <img src="/favicon.svg" alt="" width="52" height="52" />
      <h2>{words("hello")}</h2>
      <ul>
        {SUGGESTIONS.map((each) => (
          <li key={each}>
            <button
              type="button"
              onClick={() => void thread.send([{ type: "input_text", text: words(`suggestion${each}Text`) }], app.model)}
            >
              {words(`suggestion${each}`)}
            </button>
          </li>
        ))}
      </ul>
    </div>
  );
}
