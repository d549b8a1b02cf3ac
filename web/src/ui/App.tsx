/** The page: the list, the conversation, and what lies above both. */

import { ComposerPrimitive } from "@assistant-ui/react";
import { Component, lazy, type ReactNode, Suspense, useEffect, useMemo, useState } from "react";

import { session } from "../chat/api";
import { app } from "../chat/app";
import { useStore } from "../chat/store";
import type { Thread } from "../chat/thread";
import { ThreadRuntime } from "../runtime";
import { say, useWords } from "../words";
import { Attachments } from "./attachments";
import { Composer } from "./Composer";
import { refusalOf } from "./errors";
import { NewChat, Panel } from "./icons";
import { LiveRegion } from "./live";
import { SettingsDialog } from "./SettingsDialog";
import { Sidebar } from "./Sidebar";
import { SignIn } from "./SignIn";
import { ThreadView } from "./ThreadView";
import { complain, Toasts } from "./Toasts";
import { Welcome } from "./Welcome";

const SharedPage = lazy(() => import("./SharedPage"));

const NARROW = "(max-width: 760px)";

export function App({ sharedId }: { sharedId: string | null }) {
  const needsKey = useStore(session, (store) => store.needsKey);
  if (sharedId) {
    return (
      <Boundary>
        <Suspense>
          <SharedPage id={sharedId} />
        </Suspense>
      </Boundary>
    );
  }
  if (needsKey) return <SignIn />;
  return (
    <Boundary>
      <Shell />
      <Toasts />
      <LiveRegion />
    </Boundary>
  );
}

function Shell() {
  const words = useWords();
  const thread = useStore(app, (store) => store.thread);
  const [isListOpen, setListOpen] = useState(() => !matchMedia(NARROW).matches);
  const [isSettingUp, setSettingUp] = useState(false);
  const isNarrow = useMedia(NARROW);
  useEffect(() => setListOpen(!isNarrow), [isNarrow]);
  useShortcuts(() => setListOpen(true));
  const covers = isNarrow && isListOpen;

  /** The button that was pressed goes away: its counterpart has the focus then. */
  function toggleList(isWanted: boolean): void {
    setListOpen(isWanted);
    requestAnimationFrame(() => document.getElementById(isWanted ? "list-close" : "list-open")?.focus());
  }

  return (
    <div className={isListOpen ? "shell with-list" : "shell"}>
      <a className="skip" href="#composer">
        {words("skip")}
      </a>
      <Sidebar
        isOpen={isListOpen}
        isCovering={covers}
        onClose={() => toggleList(false)}
        onChosen={() => isNarrow && setListOpen(false)}
        onSettings={() => setSettingUp(true)}
      />
      {covers && <div className="shade" onClick={() => toggleList(false)} />}
      <main inert={covers}>
        <Header thread={thread} isListOpen={isListOpen} onOpenList={() => toggleList(true)} />
        <Conversation key={thread.key} thread={thread} />
      </main>
      {isSettingUp && <SettingsDialog onClose={() => setSettingUp(false)} />}
    </div>
  );
}

function Header({ thread, isListOpen, onOpenList }: { thread: Thread; isListOpen: boolean; onOpenList: () => void }) {
  const words = useWords();
  const title = useStore(thread, (store) => store.header?.title ?? null);
  const id = useStore(thread, (store) => store.id);
  useEffect(() => {
    document.title = title ? `${title} · Companion` : "Companion";
  }, [title]);
  return (
    <header className="top">
      {!isListOpen && (
        <button
          type="button"
          id="list-open"
          className="quiet"
          aria-label={words("listOpen")}
          title={words("listOpen")}
          onClick={onOpenList}
        >
          <Panel />
        </button>
      )}
      <h1 dir="auto">{title ?? (id ? words("untitled") : words("app"))}</h1>
      {!isListOpen && (
        <button type="button" className="quiet" aria-label={words("new")} title={words("new")} onClick={() => app.go(null)}>
          <NewChat />
        </button>
      )}
    </header>
  );
}

function Conversation({ thread }: { thread: Thread }) {
  const words = useWords();
  const isLoaded = useStore(thread, (store) => store.isLoaded);
  const error = useStore(thread, (store) => store.error);
  const isEmpty = useStore(thread, (store) => store.rows.length === 0);
  const attachments = useMemo(() => new Attachments(() => thread.draftKey, complain), [thread]);

  if (error) {
    const { word, canRetry } = refusalOf(error);
    return (
      <div className="nothing" role="alert">
        <p>{words(word === "errorGone" ? "errorGone" : "errorLoad")}</p>
        <button type="button" className="plain" onClick={() => (canRetry ? void thread.refresh() : app.go(null))}>
          {words(canRetry ? "retry" : "new")}
        </button>
      </div>
    );
  }
  return (
    <ThreadRuntime thread={thread} attachments={attachments}>
      <ComposerPrimitive.AttachmentDropzone className="dropzone" data-words={words("attachDrop")}>
        {isEmpty && !isLoaded && <p className="nothing">{words("loading")}</p>}
        {isEmpty && isLoaded && <Welcome thread={thread} />}
        {!isEmpty && <ThreadView thread={thread} attachments={attachments} />}
        <Composer thread={thread} attachments={attachments} />
      </ComposerPrimitive.AttachmentDropzone>
    </ThreadRuntime>
  );
}

function useShortcuts(openList: () => void): void {
  useEffect(() => {
    const onKeyDown = (event: KeyboardEvent) => {
      const isControl = event.metaKey || event.ctrlKey;
      const key = event.key.toLowerCase();
      if (isControl && key === "k") {
        openList();
        requestAnimationFrame(() => document.getElementById("search")?.focus());
      } else if (isControl && event.shiftKey && key === "o") {
        app.go(null);
        requestAnimationFrame(() => document.getElementById("composer")?.focus());
      } else if (key === "/" && !isControl && !isWriting(event.target)) {
        document.getElementById("composer")?.focus();
      } else return;
      event.preventDefault();
    };
    addEventListener("keydown", onKeyDown);
    return () => removeEventListener("keydown", onKeyDown);
  }, []);
}

function isWriting(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && target.closest("input, textarea, select") !== null;
}

function useMedia(query: string): boolean {
  const [matches, setMatches] = useState(() => matchMedia(query).matches);
  useEffect(() => {
    const list = matchMedia(query);
    const onChange = () => setMatches(list.matches);
    list.addEventListener("change", onChange);
    return () => list.removeEventListener("change", onChange);
  }, [query]);
  return matches;
}

/** A mistake of the page's own is said, and does not take the rest with it silently. */
class Boundary extends Component<{ children: ReactNode }, { failed: boolean }> {
  override state = { failed: false };

  static getDerivedStateFromError(): { failed: boolean } {
    return { failed: true };
  }

  override render(): ReactNode {
    if (!this.state.failed) return this.props.children;
    return (
      <div className="nothing" role="alert">
        <p>{say("errorPage")}</p>
        <button type="button" className="primary" onClick={() => location.reload()}>
          {say("reload")}
        </button>
      </div>
    );
  }
}
