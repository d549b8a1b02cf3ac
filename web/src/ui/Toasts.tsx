/** Short messages at the foot of the page: something was deleted and can be had back, something did not work. */

import { isPassing, statusOf } from "../chat/api";
import { app } from "../chat/app";
import { Store, useStore } from "../chat/store";
import { say, useWords } from "../words";

const COMPLAINT_MS = 6000;

class Complaint extends Store {
  text = "";
  #timer = 0;

  say(text: string): void {
    this.text = text;
    clearTimeout(this.#timer);
    this.#timer = window.setTimeout(() => {
      this.text = "";
      this.changed();
    }, COMPLAINT_MS);
    this.changed();
  }
}

const complaint = new Complaint();

export function complain(text: string): void {
  complaint.say(text);
}

/** What did not work is said; the list shows how things are. */
export function tried(work: Promise<unknown>): void {
  work.catch((error: unknown) => {
    const isAnswered = statusOf(error) !== undefined;
    complain(say(!isPassing(error) ? "failed" : isAnswered ? "failedNow" : "failedOffline"));
  });
}

export function Toasts() {
  const words = useWords();
  const undoable = useStore(app.conversations, (store) => store.undoable);
  const text = useStore(complaint, (store) => store.text);
  return (
    <div className="toasts" role="status">
      {text && <p className="toast">{text}</p>}
      {undoable && (
        <p className="toast">
          <span dir="auto">{words("deleted", { title: undoable.title ?? words("untitled") })}</span>
          <button type="button" onClick={() => tried(app.conversations.undo().then((id) => id && app.go(id)))}>
            {words("undo")}
          </button>
        </p>
      )}
    </div>
  );
}
