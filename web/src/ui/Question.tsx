/** What the user said: text and attachments, to be copied, edited, and looked at in its versions. */

import { memo, useEffect, useRef, useState } from "react";

import { app } from "../chat/app";
import { drafts } from "../chat/saved";
import { useStore } from "../chat/store";
import type { Thread } from "../chat/thread";
import { textOf } from "../chat/turns";
import type { Part, Turn } from "../chat/types";
import { useWords } from "../words";
import { CopyButton } from "./CopyButton";
import { File, Pen } from "./icons";
import { Versions } from "./Versions";

export const Question = memo(function Question({
  thread,
  content,
  turn,
  versions,
}: {
  thread: Thread;
  content: Part[];
  turn: Turn | null;
  versions: Turn[];
}) {
  const words = useWords();
  const draftKey = turn ? `edit.${turn.id}` : "";
  const [isEditing, setEditing] = useState(() => draftKey !== "" && drafts.text(draftKey) !== "");
  const isBusy = useStore(thread, (store) => store.isBusy);
  const edit = useRef<HTMLButtonElement>(null);
  const text = textOf(content);

  if (turn && isEditing) {
    return (
      <Editor
        text={drafts.text(draftKey) || text}
        isBusy={isBusy}
        onChange={(edited) => drafts.keep(draftKey, edited)}
        onEnd={(edited) => {
          drafts.keep(draftKey, "");
          setEditing(false);
          if (edited !== null) void thread.edit(turn, withText(content, edited), app.model);
          else requestAnimationFrame(() => edit.current?.focus());
        }}
      />
    );
  }
  return (
    <article className="question" aria-label={words("you")}>
      <Attached content={content} />
      {text && (
        <div className="bubble" dir="auto">
          {text}
        </div>
      )}
      <div className="actions">
        {turn && <Versions thread={thread} versions={versions} shown={turn} />}
        <CopyButton text={text} label={words("copy")} />
        {turn && (
          <button
            ref={edit}
            type="button"
            className="quiet"
            aria-label={words("edit")}
            title={words("edit")}
            disabled={isBusy}
            onClick={() => setEditing(true)}
          >
            <Pen />
          </button>
        )}
      </div>
    </article>
  );
});

function Editor({
  text,
  isBusy,
  onChange,
  onEnd,
}: {
  text: string;
  isBusy: boolean;
  onChange: (text: string) => void;
  onEnd: (text: string | null) => void;
}) {
  const words = useWords();
  const area = useRef<HTMLTextAreaElement>(null);
  useEffect(() => {
    area.current?.focus();
    area.current?.setSelectionRange(text.length, text.length);
  }, []);

  function send(): void {
    const edited = area.current?.value.trim();
    if (edited && !isBusy) onEnd(edited); // nothing is sent while an answer is written: the words stay here
  }

  return (
    <article className="question editing" aria-label={words("you")}>
      <textarea
        ref={area}
        dir="auto"
        rows={3}
        defaultValue={text}
        aria-label={words("editLabel")}
        onChange={(event) => onChange(event.target.value)}
        onKeyDown={(event) => {
          if (event.nativeEvent.isComposing) return;
          if (event.key === "Escape") onEnd(null);
          if (event.key !== "Enter" || event.shiftKey) return;
          event.preventDefault();
          send();
        }}
      />
      <div className="buttons">
        <button type="button" className="plain" onClick={() => onEnd(null)}>
          {words("cancel")}
        </button>
        <button type="button" className="primary" disabled={isBusy} onClick={send}>
          {words("editSend")}
        </button>
      </div>
    </article>
  );
}

/** Pictures and files of a message. A picture that is not part of the message itself is not fetched. */
export function Attached({ content }: { content: Part[] }) {
  const words = useWords();
  const parts = content.filter((part) => part.type === "input_image" || part.type === "input_file");
  if (!parts.length) return null;
  return (
    <div className="attached">
      {parts.map((part, place) =>
        part.image_url?.startsWith("data:image/") ? (
          <img key={place} src={part.image_url} alt={words("image", { name: part.filename ?? `${place + 1}` })} />
        ) : (
          <span key={place} className="chip">
            <File />
            <span className="name" dir="auto">
              {part.filename ?? part.image_url ?? part.type}
            </span>
          </span>
        ),
      )}
    </div>
  );
}

function withText(content: Part[], text: string): Part[] {
  const others = content.filter((part) => part.type !== "input_text");
  return [{ type: "input_text", text }, ...others.map(({ type, image_url, detail, filename, file_data }) =>
    type === "input_image" ? { type, image_url, detail } : { type, filename, file_data },
  )] as Part[];
}
