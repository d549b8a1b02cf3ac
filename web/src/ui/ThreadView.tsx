/** The messages of a conversation. Only those near the screen exist as elements, however long it is. */

import { useEffect, useLayoutEffect, useRef, useState } from "react";
import { Virtualizer, type VirtualizerHandle } from "virtua";

import { isPassing, statusOf } from "../chat/api";
import type { Row } from "../chat/rows";
import { useStore } from "../chat/store";
import type { Thread } from "../chat/thread";
import { answerText, spoken, textOf } from "../chat/turns";
import { isFinal } from "../chat/types";
import { Markdown } from "../markdown/Markdown";
import { useWords, type Word } from "../words";
import { Answer, Dots, Problem } from "./Answer";
import type { Attachments } from "./attachments";
import { useTakeBack } from "./Composer";
import { refusalOf } from "./errors";
import { announce } from "./live";
import { ArrowDown } from "./icons";
import { Attached, Question } from "./Question";

/** Pixels from the end within which the end is kept in sight as it moves. */
const NEAR = 48;
/** Pixels from the beginning at which older messages are fetched. */
const EARLY = 2500;
const SPOKEN = 1500;

export function ThreadView({ thread, attachments }: { thread: Thread; attachments: Attachments }) {
  const words = useWords();
  const rows = useStore(thread, (store) => store.rows);
  const isLoadingOlder = useStore(thread, (store) => store.isLoadingOlder);
  const scroller = useRef<HTMLDivElement>(null);
  const content = useRef<HTMLDivElement>(null);
  const list = useRef<VirtualizerHandle>(null);
  const isPrepended = usePrepended(rows);
  const { isAtEnd, onScroll, toEnd } = useEnd(scroller, content, thread);
  useAnnouncements(thread);

  function fetchOlder(): void {
    if (thread.hasOlder && (scroller.current?.scrollTop ?? 0) < EARLY) void thread.loadOlder();
  }
  useEffect(fetchOlder, [rows]);

  return (
    <div className="thread">
      <div
        ref={scroller}
        className="scroller"
        tabIndex={0}
        role="region"
        aria-label={words("thread")}
        onScroll={() => {
          onScroll();
          fetchOlder();
        }}
      >
        {isLoadingOlder && <p className="older-loading">{words("older_loading")}</p>}
        <div ref={content} className="rows">
          <Virtualizer ref={list} scrollRef={scroller} data={rows} shift={isPrepended} bufferSize={700}>
            {(row) => (
              <div key={row.key} className="row">
                <RowView thread={thread} attachments={attachments} row={row} />
              </div>
            )}
          </Virtualizer>
        </div>
      </div>
      {!isAtEnd && (
        <button type="button" className="to-end" aria-label={words("latest")} title={words("latest")} onClick={toEnd}>
          <ArrowDown />
        </button>
      )}
    </div>
  );
}

function RowView({ thread, attachments, row }: { thread: Thread; attachments: Attachments; row: Row }) {
  switch (row.kind) {
    case "question":
      return <Question thread={thread} content={row.content} turn={row.turn} versions={row.versions} />;
    case "answer":
      return <Answer thread={thread} turn={row.turn} versions={row.versions} />;
    case "sending":
      return <SendingRow thread={thread} attachments={attachments} row={row} />;
    case "said":
      return <Said row={row} />;
  }
}

function SendingRow({
  thread,
  attachments,
  row,
}: {
  thread: Thread;
  attachments: Attachments;
  row: Extract<Row, { kind: "sending" }>;
}) {
  const words = useWords();
  const takeBack = useTakeBack(thread, attachments);
  return (
    <article className="answer" aria-label={words("assistant")} data-status={row.state}>
      {row.state === "sending" && <Dots />}
      {row.state === "waiting" && <p className="waiting">{words(waitingWord(row.error))}</p>}
      {row.state === "refused" && <Problem trouble={refusalOf(row.error)} onRetry={() => thread.retry()} />}
      {row.state !== "sending" && (
        <button type="button" className="plain" onClick={() => void takeBack()}>
          {words("takeBack")}
        </button>
      )}
    </article>
  );
}

/** Why a message has to wait: nobody was reached, the server has trouble or too much to do, or the conversation is busy. */
function waitingWord(error: unknown): Word {
  if (statusOf(error) === undefined) return "waiting";
  return isPassing(error) ? "waitingServer" : "waitingBusy";
}

/** An item that a program put into the conversation. */
function Said({ row }: { row: Extract<Row, { kind: "said" }> }) {
  const words = useWords();
  const parts = row.items.flatMap((item) => item.content ?? []);
  if (row.role === "user") {
    return (
      <article className="question" aria-label={words("you")}>
        <Attached content={parts} />
        <div className="bubble" dir="auto">
          {textOf(parts)}
        </div>
      </article>
    );
  }
  return (
    <article className="answer" aria-label={words("assistant")}>
      <Markdown text={textOf(parts)} />
    </article>
  );
}

/** Whether rows were put before those that were there: the view then stays on what is read. */
function usePrepended(rows: readonly Row[]): boolean {
  const before = useRef<readonly Row[]>([]);
  const was = before.current;
  const isPrepended = was.length > 0 && rows.length > was.length && rows[0]?.key !== was[0]?.key && rows.at(-1)?.key === was.at(-1)?.key;
  useLayoutEffect(() => {
    before.current = rows;
  }, [rows]);
  return isPrepended;
}

/** Keeps the end in sight while an answer grows, until the user scrolls away from it. */
function useEnd(scroller: React.RefObject<HTMLDivElement | null>, content: React.RefObject<HTMLDivElement | null>, thread: Thread) {
  const [isAtEnd, setAtEnd] = useState(true);
  const isStuck = useRef(true);
  const touched = useRef(-Infinity);

  function toEnd(): void {
    isStuck.current = true;
    if (scroller.current) scroller.current.scrollTop = scroller.current.scrollHeight;
  }

  function onScroll(): void {
    const box = scroller.current;
    if (!box) return;
    const isNear = box.scrollHeight - box.scrollTop - box.clientHeight < NEAR;
    if (isNear) isStuck.current = true;
    else if (performance.now() - touched.current < 1500) isStuck.current = false;
    setAtEnd(isNear || isStuck.current);
  }

  useLayoutEffect(() => {
    const [box, inner] = [scroller.current, content.current];
    if (!box || !inner) return;
    toEnd();
    const observer = new ResizeObserver(() => isStuck.current && toEnd());
    observer.observe(inner);
    observer.observe(box);
    const byUser = () => {
      touched.current = performance.now();
    };
    const kinds = ["wheel", "touchmove", "keydown", "pointerdown"] as const;
    for (const kind of kinds) box.addEventListener(kind, byUser, { passive: true });
    return () => {
      observer.disconnect();
      for (const kind of kinds) box.removeEventListener(kind, byUser);
    };
  }, []);

  const sending = useStore(thread, (store) => store.sending?.message.key);
  useLayoutEffect(() => {
    if (sending) toEnd(); // one's own message is looked at
  }, [sending]);

  return { isAtEnd, onScroll, toEnd };
}

/** A screen reader hears that an answer is being written, and then the answer. */
function useAnnouncements(thread: Thread): void {
  const words = useWords();
  const tip = useStore(thread, (store) => store.tip);
  const running = useRef<string | null>(null);
  useEffect(() => {
    if (!tip) return;
    if (!isFinal(tip.status)) {
      if (running.current !== tip.id) announce(words("writing"));
      running.current = tip.id;
    } else if (running.current === tip.id) {
      running.current = null;
      const text = spoken(answerText(tip));
      announce(text ? text.slice(0, SPOKEN) : words("answerDone"));
    }
  }, [tip]);
}
