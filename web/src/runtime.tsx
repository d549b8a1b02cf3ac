/**
 * The adapter between assistant-ui and a `Thread`: what its composer does, ours sends.
 *
 * assistant-ui keeps a client per message, whose cost grows with the thread: with 4,000 messages 0.7 s per update. So its runtime
 * gets the composer, the attachments and whether something runs; the messages are rendered from `Thread.rows`.
 */

import {
  type AppendMessage,
  AssistantRuntimeProvider,
  type ThreadMessageLike,
  useExternalStoreRuntime,
} from "@assistant-ui/react";
import { type ReactNode, useMemo } from "react";

import { app } from "./chat/app";
import { useStore } from "./chat/store";
import type { Thread } from "./chat/thread";
import type { Part } from "./chat/types";
import { type Attachments, partsOf } from "./ui/attachments";

export function ThreadRuntime({
  thread,
  attachments,
  children,
}: {
  thread: Thread;
  attachments: Attachments;
  children: ReactNode;
}) {
  const isRunning = useStore(thread, (store) => store.isBusy);
  const adapters = useMemo(() => ({ attachments }), [attachments]);
  const runtime = useExternalStoreRuntime({
    messages: NONE,
    convertMessage,
    isRunning,
    onNew: async (message) => {
      const draft = thread.draftKey;
      await thread.send(contentOf(message), app.model);
      thread.forgetDraft(draft); // only now: until it lies in the outbox, the draft is what survives
      attachments.sent();
    },
    onCancel: () => thread.stop(),
    adapters,
  });
  return <AssistantRuntimeProvider runtime={runtime}>{children}</AssistantRuntimeProvider>;
}

const NONE: readonly ThreadMessageLike[] = [];

function convertMessage(message: ThreadMessageLike): ThreadMessageLike {
  return message;
}

function contentOf(message: AppendMessage): Part[] {
  const text = message.content.map((part) => (part.type === "text" ? part.text : "")).join("");
  return [...(text ? [{ type: "input_text", text }] : []), ...partsOf(message.attachments ?? [])];
}
