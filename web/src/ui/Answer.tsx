/** What the assistant said: thoughts, tools, text; then which model it was, how long it took and what it cost. */

import { lazy, memo, Suspense, useState } from "react";

import { app } from "../chat/app";
import { useStore } from "../chat/store";
import type { Thread } from "../chat/thread";
import { answerText, textOf } from "../chat/turns";
import { isFinal, type Item, type Turn } from "../chat/types";
import { Markdown } from "../markdown/Markdown";
import { number, useWords } from "../words";
import { CopyButton } from "./CopyButton";
import { type Trouble, troubleOf } from "./errors";
import { Again, Spark, Tool, Warning } from "./icons";
import { Versions } from "./Versions";

const TraceDialog = lazy(() => import("./TraceDialog"));

export const Answer = memo(function Answer({ thread, turn, versions }: { thread: Thread; turn: Turn; versions: Turn[] }) {
  const words = useWords();
  const isRunning = !isFinal(turn.status);
  const trouble = troubleOf(turn);
  return (
    <article className="answer" aria-label={words("assistant")} aria-busy={isRunning} data-status={turn.status}>
      {turn.output.map((item, place) => (
        <OutputItem key={item.id ?? place} item={item} isLast={place === turn.output.length - 1} isRunning={isRunning} />
      ))}
      {isRunning && !isSpeaking(turn) && <Dots />}
      {trouble && <Problem trouble={trouble} onRetry={() => void thread.again(turn, app.model)} />}
      {!isRunning && <Footer thread={thread} turn={turn} versions={versions} />}
    </article>
  );
});

/** Words are coming: they show that something happens. */
function isSpeaking(turn: Turn): boolean {
  const last = turn.output.at(-1);
  return last?.type === "message" && textOf(last.content) !== "";
}

export function Dots() {
  const words = useWords();
  return (
    <p className="dots" role="img" aria-label={words("writing")}>
      <i />
      <i />
      <i />
    </p>
  );
}

function OutputItem({ item, isLast, isRunning }: { item: Item; isLast: boolean; isRunning: boolean }) {
  const words = useWords();
  switch (item.type) {
    case "message":
      if (!isLast && item.status === "incomplete") return <Torn text={textOf(item.content)} />;
      return <Markdown text={textOf(item.content)} />;
    case "reasoning":
      return <Thought item={item} isOpen={isLast && isRunning} />;
    case "function_call":
    case "custom_tool_call":
    case "mcp_call":
      return <ToolUse item={item} />;
    default:
      return item.type.endsWith("_call") ? (
        <p className="step">
          <Tool /> {words("tool", { name: item.type.replace(/_call$/, "").replaceAll("_", " ") })}
        </p>
      ) : null;
  }
}

function Torn({ text }: { text: string }) {
  const words = useWords();
  return (
    <details className="step torn">
      <summary>
        <Warning /> {words("torn")}
      </summary>
      <p>{words("tornWhy")}</p>
      <Markdown text={text} />
    </details>
  );
}

function Thought({ item, isOpen }: { item: Item; isOpen: boolean }) {
  const words = useWords();
  const text = textOf(item.summary) || textOf(item.content);
  if (!text && !isOpen) return null;
  return (
    <details className="step" open={isOpen}>
      <summary>
        <Spark /> {words(isOpen ? "thinking" : "thoughtFor")}
      </summary>
      <div dir="auto" className="thought">
        {text}
      </div>
    </details>
  );
}

function ToolUse({ item }: { item: Item }) {
  const words = useWords();
  const name = item.name ?? item.type;
  const isOver = item.status !== "in_progress";
  const failed = item.error !== undefined && item.error !== null;
  return (
    <details className="step">
      <summary>
        <Tool /> {words(failed ? "toolFailed" : isOver ? "tool" : "toolRunning", { name })}
      </summary>
      <h3>{words("toolInput")}</h3>
      <pre tabIndex={0}>{item.arguments ?? item.input}</pre>
      {(item.output ?? item.error) != null && (
        <>
          <h3>{words("toolOutput")}</h3>
          <pre tabIndex={0}>{asText(item.output ?? item.error)}</pre>
        </>
      )}
    </details>
  );
}

function asText(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}

export function Problem({ trouble, onRetry }: { trouble: Trouble; onRetry?: () => void }) {
  const words = useWords();
  return (
    <div className={trouble.word === "errorStopped" ? "problem calm" : "problem"} role={onRetry ? "alert" : undefined}>
      <p>
        <Warning />
        {words(trouble.word)}
      </p>
      {trouble.detail && (
        <details>
          <summary>{words("errorDetails")}</summary>
          <p dir="auto">{trouble.detail}</p>
        </details>
      )}
      {trouble.canRetry && onRetry && (
        <button type="button" className="plain" onClick={onRetry}>
          <Again />
          {words("retry")}
        </button>
      )}
    </div>
  );
}

function Footer({ thread, turn, versions }: { thread: Thread; turn: Turn; versions: Turn[] }) {
  const words = useWords();
  const isBusy = useStore(thread, (store) => store.isBusy);
  return (
    <footer className="actions">
      <Versions thread={thread} versions={versions} shown={turn} />
      {answerText(turn) && <CopyButton text={() => answerText(turn)} label={words("copy")} />}
      <button
        type="button"
        className="quiet"
        aria-label={words("again")}
        title={words("again")}
        disabled={isBusy}
        onClick={() => void thread.again(turn, app.model)}
      >
        <Again />
      </button>
      <Facts turn={turn} />
    </footer>
  );
}

function Facts({ turn }: { turn: Turn }) {
  const words = useWords();
  const ms = turn.duration_ms;
  const facts = [
    turn.model,
    ms != null && words("seconds", { seconds: seconds(ms) }),
    turn.usage && words("tokens", { count: number(turn.usage.output_tokens) }),
    turn.cost !== null && (turn.cost > 0 ? money(turn.cost) : words("free")),
  ].filter(Boolean);
  const [isTraced, setTraced] = useState(false);
  return (
    <>
      <button type="button" className="facts" title={words("trace")} aria-haspopup="dialog" onClick={() => setTraced(true)}>
        {facts.join(" · ")}
      </button>
      {isTraced && (
        <Suspense>
          <TraceDialog response={turn.id} onClose={() => setTraced(false)} />
        </Suspense>
      )}
    </>
  );
}

function seconds(ms: number): string {
  return number(Math.max(ms, 0) / 1000, { maximumFractionDigits: ms < 10_000 ? 1 : 0 });
}

function money(dollars: number): string {
  return number(dollars, { style: "currency", currency: "USD", maximumSignificantDigits: 2 });
}
