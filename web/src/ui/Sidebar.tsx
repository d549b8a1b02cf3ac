/** The conversations at the left. */

import { type FormEvent, type KeyboardEvent, lazy, memo, Suspense, useEffect, useRef, useState } from "react";
import { createPortal } from "react-dom";

import { app } from "../chat/app";
import { useStore } from "../chat/store";
import type { Conversation } from "../chat/types";
import { useWords, type Word } from "../words";
import { Cross, Dots, Gear, Link, NewChat, Panel, Pen, Pin, Search, Trash } from "./icons";
import { Menu } from "./Menu";
import { tried } from "./Toasts";

const ShareDialog = lazy(() => import("./ShareDialog"));

const DAY = 86_400;

export function Sidebar({
  isOpen,
  isCovering,
  onClose,
  onChosen,
  onSettings,
}: {
  isOpen: boolean;
  /** It lies on the conversation: Escape closes it. */
  isCovering: boolean;
  onClose: () => void;
  onChosen: () => void;
  onSettings: () => void;
}) {
  const words = useWords();

  function choose(id: string | null): void {
    app.go(id);
    onChosen();
  }

  function onKeyDown({ key, target, currentTarget }: KeyboardEvent): void {
    if (!isCovering || key !== "Escape" || !currentTarget.contains(target as Node)) return; // a dialog's own
    if (!(target instanceof HTMLInputElement && target.value)) onClose(); // what is written is given up first
  }

  return (
    <nav
      className={isOpen ? "sidebar open" : "sidebar"}
      aria-label={words("conversations")}
      inert={!isOpen}
      onKeyDownCapture={onKeyDown}
    >
      <header>
        <a
          className="brand"
          href="/"
          onClick={(event) => {
            if (event.metaKey || event.ctrlKey) return;
            event.preventDefault();
            choose(null);
          }}
        >
          <img src="/favicon.svg" alt="" width="24" height="24" />
          {words("app")}
        </a>
        <button
          type="button"
          id="list-close"
          className="quiet"
          aria-label={words("listClose")}
          title={words("listClose")}
          onClick={onClose}
        >
          <Panel />
        </button>
      </header>
      <button type="button" className="new" onClick={() => choose(null)}>
        <NewChat />
        {words("new")}
      </button>
      <SearchBox />
      <List onChoose={choose} />
      <footer>
        <button type="button" className="row-button" onClick={onSettings}>
          <Gear />
          {words("settings")}
        </button>
      </footer>
    </nav>
  );
}

function SearchBox() {
  const words = useWords();
  const query = useRef<HTMLInputElement>(null);
  const [hasText, setHasText] = useState(false);

  function search(text: string): void {
    setHasText(text !== "");
    void app.conversations.search(text);
  }

  return (
    <div className="search" role="search">
      <Search />
      <input
        ref={query}
        id="search"
        type="search"
        dir="auto"
        placeholder={words("search")}
        aria-label={words("search")}
        onChange={(event) => search(event.target.value)}
        onKeyDown={(event) => {
          if (event.key !== "Escape" || !query.current) return;
          query.current.value = "";
          search("");
        }}
      />
      {hasText && (
        <button
          type="button"
          className="quiet"
          aria-label={words("searchClear")}
          onClick={() => {
            if (query.current) query.current.value = "";
            search("");
            query.current?.focus();
          }}
        >
          <Cross />
        </button>
      )}
    </div>
  );
}

function List({ onChoose }: { onChoose: (id: string) => void }) {
  const words = useWords();
  const shown = useStore(app.conversations, (store) => store.shown);
  const isLoaded = useStore(app.conversations, (store) => store.isLoaded);
  const query = useStore(app.conversations, (store) => store.query);
  const isSearching = useStore(app.conversations, (store) => store.isSearching);
  const isSearchCut = useStore(app.conversations, (store) => store.isSearchCut);
  const current = useStore(app, (store) => store.thread.id);
  const end = useRef<HTMLDivElement>(null);

  useEffect(() => {
    if (!end.current || !isLoaded) return;
    // observed anew after each page: an end that is still in sight would not be reported a second time
    const observer = new IntersectionObserver(([entry]) => entry?.isIntersecting && void app.conversations.loadMore(), {
      rootMargin: "400px",
    });
    observer.observe(end.current);
    return () => observer.disconnect();
  }, [isLoaded, shown.length]);

  const groups: [Word, readonly Conversation[]][] = query ? [["found", shown]] : grouped(shown);
  return (
    <div className="list" tabIndex={-1}>
      {groups.map(([name, members]) => members.length > 0 && (
        <section key={name} aria-label={words(name)}>
          <h2>{words(name)}</h2>
          <ul>
            {members.map((each) => (
              <Entry key={each.id} conversation={each} isCurrent={each.id === current} onChoose={onChoose} />
            ))}
          </ul>
        </section>
      ))}
      {isSearchCut && <p className="hint">{words("searchFailed")}</p>}
      {isLoaded && shown.length === 0 && !isSearching && !isSearchCut && (
        <p className="hint">{query ? words("searchNone", { query }) : words("listEmpty")}</p>
      )}
      <div ref={end} className="list-end" />
    </div>
  );
}

const Entry = memo(function Entry({
  conversation,
  isCurrent,
  onChoose,
}: {
  conversation: Conversation;
  isCurrent: boolean;
  onChoose: (id: string) => void;
}) {
  const words = useWords();
  const [isRenaming, setRenaming] = useState(false);
  const [isSharing, setSharing] = useState(false);
  const link = useRef<HTMLAnchorElement>(null);
  const { id } = conversation;
  const title = conversation.title ?? words("untitled");
  const { pinned } = conversation;

  function onRenamed(isByKey: boolean): void {
    setRenaming(false);
    if (isByKey) requestAnimationFrame(() => link.current?.focus()); // a click has taken it elsewhere
  }

  /** The row goes away at once: its neighbour has the focus then. */
  function remove(): void {
    const links = [...document.querySelectorAll<HTMLElement>(".list a")];
    const place = links.findIndex((each) => each === link.current);
    (links[place + 1] ?? links[place - 1] ?? document.getElementById("search"))?.focus();
    tried(app.remove(id));
  }

  if (isRenaming) return <Rename id={id} title={title} onDone={onRenamed} />;
  return (
    <li className={isCurrent ? "entry current" : "entry"}>
      <a
        ref={link}
        href={`/c/${id}`}
        aria-current={isCurrent ? "page" : undefined}
        title={title}
        onClick={(event) => {
          if (event.metaKey || event.ctrlKey || event.shiftKey) return;
          event.preventDefault();
          onChoose(id);
        }}
      >
        {conversation.running && <span className="running-dot" role="img" aria-label={words("running")} />}
        <span className="title" dir="auto">
          {title}
          {conversation.match?.in === "text" && <small>{conversation.match.snippet}</small>}
        </span>
      </a>
      <Menu
        label={words("more", { title })}
        icon={<Dots />}
        choices={[
          { label: words("rename"), icon: <Pen />, act: () => setRenaming(true) },
          { label: words(pinned ? "unpin" : "pin"), icon: <Pin />, act: () => tried(app.conversations.pin(id, !pinned)) },
          { label: words("share"), icon: <Link />, act: () => setSharing(true) },
          { label: words("delete"), icon: <Trash />, isDangerous: true, act: remove },
        ]}
      />
      {isSharing &&
        createPortal(
          <Suspense>
            <ShareDialog conversation={id} onClose={() => setSharing(false)} />
          </Suspense>,
          document.body, // a list may clip what is in it
        )}
    </li>
  );
});

function Rename({ id, title, onDone }: { id: string; title: string; onDone: (isByKey: boolean) => void }) {
  const words = useWords();
  const field = useRef<HTMLInputElement>(null);
  const isOver = useRef(false);
  useEffect(() => field.current?.select(), []);

  function end(isSaved: boolean, isByKey = true): void {
    if (isOver.current) return;
    isOver.current = true;
    const wanted = field.current?.value.trim();
    if (isSaved && wanted && wanted !== title) tried(app.conversations.rename(id, wanted));
    onDone(isByKey);
  }

  return (
    <li className="entry">
      <form
        onSubmit={(event: FormEvent) => {
          event.preventDefault();
          end(true);
        }}
      >
        <input
          ref={field}
          defaultValue={title}
          maxLength={200}
          dir="auto"
          aria-label={words("renameLabel")}
          onBlur={() => end(true, false)}
          onKeyDown={(event) => event.key === "Escape" && end(false)}
        />
      </form>
    </li>
  );
}

function grouped(shown: readonly Conversation[]): [Word, Conversation[]][] {
  const midnight = new Date().setHours(0, 0, 0, 0) / 1000;
  const groups: [Word, Conversation[]][] = [
    ["pinned", []],
    ["today", []],
    ["yesterday", []],
    ["week", []],
    ["older", []],
  ];
  for (const each of shown) {
    const age = midnight - each.updated_at;
    const place = each.pinned ? 0 : age <= 0 ? 1 : age <= DAY ? 2 : age <= 7 * DAY ? 3 : 4;
    groups[place]?.[1].push(each);
  }
  return groups;
}
