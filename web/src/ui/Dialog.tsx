import { type ReactNode, useEffect, useRef } from "react";

import { useWords } from "../words";
import { Cross } from "./icons";

/** A dialog with a title and a button that closes it; the browser keeps the focus inside and gives it back. */
export function Dialog({ title, onClose, children }: { title: string; onClose: () => void; children: ReactNode }) {
  const words = useWords();
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} className="dialog" aria-labelledby="dialog-title" onClose={onClose}>
      <header>
        <h2 id="dialog-title">{title}</h2>
        <button type="button" className="quiet" aria-label={words("close")} onClick={() => dialog.current?.close()}>
          <Cross />
        </button>
      </header>
      {children}
    </dialog>
  );
}
