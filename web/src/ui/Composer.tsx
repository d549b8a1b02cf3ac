/** Where messages are written: assistant-ui's composer, our draft, model choice and buttons. */

import { AttachmentPrimitive, ComposerPrimitive, useAui, useAuiState } from "@assistant-ui/react";
import { useEffect, useRef } from "react";

import { app } from "../chat/app";
import { connection } from "../chat/connection";
import { drafts } from "../chat/saved";
import { useStore } from "../chat/store";
import type { Thread } from "../chat/thread";
import { say, useWords } from "../words";
import { type Attachments, filesOf } from "./attachments";
import { ArrowUp, Clip, Cloud, Cross, File, Square } from "./icons";
import { complain } from "./Toasts";

const CALM_MS = 400;
const isTouch = matchMedia("(pointer: coarse)").matches;

export function Composer({ thread, attachments }: { thread: Thread; attachments: Attachments }) {
  const words = useWords();
  const isBusy = useStore(thread, (store) => store.isBusy);
  const isStopping = useStore(thread, (store) => store.isStopping);
  const stop = useStop(thread, attachments);
  const tapStop = useCalm(stop, isBusy);
  useStoredDraft(thread, attachments);

  return (
    <div className="composer-place">
      <Notices thread={thread} />
      <ComposerPrimitive.Root className="composer">
        <div className="chips">
          <ComposerPrimitive.Attachments components={{ Attachment: Chip }} />
        </div>
        <ComposerPrimitive.Input
          id="composer"
          className="input"
          dir="auto"
          minRows={1}
          maxRows={12}
          autoFocus={!isTouch}
          placeholder={words("write")}
          aria-label={words("writeTo")}
          cancelOnEscape={false}
          unstable_insertNewlineOnTouchEnter
          unstable_focusOnRunStart={!isTouch}
          onChange={(event) => drafts.keep(thread.draftKey, event.target.value)}
          onKeyDown={(event) => {
            if (event.key === "Escape" && isBusy) stop();
          }}
        />
        <div className="tools">
          <ComposerPrimitive.AddAttachment className="quiet" aria-label={words("attach")} title={words("attach")}>
            <Clip />
          </ComposerPrimitive.AddAttachment>
          <ModelChoice />
          <span className="space" />
          {isBusy ? (
            <button
              type="button"
              className="send"
              disabled={isStopping}
              aria-label={words(isStopping ? "stopping" : "stop")}
              title={words(isStopping ? "stopping" : "stop")}
              onClick={tapStop}
            >
              <Square />
            </button>
          ) : (
            <ComposerPrimitive.Send className="send" aria-label={words("send")} title={words("send")}>
              <ArrowUp />
            </ComposerPrimitive.Send>
          )}
        </div>
      </ComposerPrimitive.Root>
    </div>
  );
}

/** The second tap of a double tap on Send would hit Stop, which takes its place: it counts a moment later only. */
function useCalm(act: () => void, isOffered: boolean): () => void {
  const since = useRef(0);
  useEffect(() => {
    if (isOffered) since.current = performance.now();
  }, [isOffered]);
  return () => {
    if (performance.now() - since.current > CALM_MS) act();
  };
}

/** What was written and attached before the page was closed. */
function useStoredDraft(thread: Thread, attachments: Attachments): void {
  const aui = useAui();
  useEffect(() => {
    let isCurrent = true;
    aui.composer.setText(drafts.text(thread.draftKey));
    void attachments.restore().then((files) => {
      for (const file of files) if (isCurrent) void aui.composer.addAttachment(file);
    });
    return () => {
      isCurrent = false;
    };
  }, [aui, thread, attachments]);
}

/** Stop the answer; a message that has not reached the server comes back for editing. */
export function useStop(thread: Thread, attachments: Attachments): () => void {
  const takeBack = useTakeBack(thread, attachments);
  return () => {
    if (thread.sending?.state === "waiting") void takeBack();
    else thread.stop(() => complain(say("stopLater"))).catch(() => complain(say("failed")));
  };
}

/** Put a message that was not accepted back into the composer. */
export function useTakeBack(thread: Thread, attachments: Attachments): () => Promise<void> {
  const aui = useAui();
  return async () => {
    const message = await thread.takeBack();
    if (!message) return;
    const written = message.content.map((part) => part.text ?? "").join("");
    const text = [written, aui.composer.getState().text].filter(Boolean).join("\n\n");
    drafts.keep(thread.draftKey, text);
    aui.composer.setText(text);
    const files = filesOf(message.content);
    if (files.length) {
      await attachments.take(files);
      for (const file of await attachments.restore()) await aui.composer.addAttachment(file);
    }
    document.getElementById("composer")?.focus();
  };
}

function Chip() {
  const words = useWords();
  const attachment = useAuiState((state) => state.attachment);
  const picture = attachment.content?.find((part) => part.type === "image");
  return (
    <AttachmentPrimitive.Root className="chip">
      {picture?.type === "image" ? <img src={picture.image} alt="" /> : <File />}
      <span className="name" dir="auto">
        {attachment.name}
      </span>
      <AttachmentPrimitive.Remove className="quiet" aria-label={words("attachRemove", { name: attachment.name })}>
        <Cross />
      </AttachmentPrimitive.Remove>
    </AttachmentPrimitive.Root>
  );
}

function ModelChoice() {
  const words = useWords();
  const models = useStore(app, (store) => store.models);
  const model = useStore(app, (store) => store.model);
  return (
    <select className="model" aria-label={words("model")} title={words("model")} value={model} onChange={(event) => app.choose(event.target.value)}>
      {(models.length ? models : [model]).map((each) => (
        <option key={each} value={each}>
          {each}
        </option>
      ))}
    </select>
  );
}

function Notices({ thread }: { thread: Thread }) {
  const words = useWords();
  const reach = useStore(connection, (store) => store.reach);
  const isReconnecting = useStore(thread, (store) => store.isReconnecting);
  const text = reach !== "online" ? words(reach) : isReconnecting ? words("reconnecting") : "";
  return (
    <div className="notices" role="status">
      {text && (
        <p className="notice">
          <Cloud />
          {text}
        </p>
      )}
    </div>
  );
}
