/** What anybody with a share link sees: the words, and nothing of whose they are. */

import { useEffect, useState } from "react";

import { api } from "../chat/api";
import type { SharedConversation } from "../chat/types";
import { Markdown } from "../markdown/Markdown";
import { dictionary, useWords } from "../words";

export default function SharedPage({ id }: { id: string }) {
  const words = useWords();
  const [shared, setShared] = useState<SharedConversation | null | undefined>(undefined);
  const [failed, setFailed] = useState(false);
  useEffect(() => {
    api.shared(id).then(setShared, () => setFailed(true));
  }, [id]);
  useEffect(() => {
    document.title = shared?.title ? `${shared.title} · Companion` : "Companion";
  }, [shared]);

  if (failed) {
    return (
      <main>
        <div className="nothing" role="alert">
          <p>{words("errorLoad")}</p>
          <button type="button" className="plain" onClick={() => location.reload()}>
            {words("retry")}
          </button>
        </div>
      </main>
    );
  }
  if (!shared) {
    return (
      <main>
        <p className="nothing" role={shared === null ? "alert" : undefined}>
          {words(shared === null ? "sharedGone" : "loading")}
        </p>
      </main>
    );
  }
  const day = new Intl.DateTimeFormat(dictionary.language, { dateStyle: "long" }).format(shared.created_at * 1000);
  return (
    <main className="shared" tabIndex={0}>
      <header className="row">
        <h1 dir="auto">{shared.title ?? words("untitled")}</h1>
        <p className="muted">{words("sharedOn", { day })}</p>
      </header>
      {shared.items.map((item, place) => (
        <div key={place} className="row">
          {item.role === "user" ? (
            <article className="question" aria-label={words("sharedQuestion")}>
              <div className="bubble" dir="auto">
                {item.text}
              </div>
            </article>
          ) : (
            <article className="answer" aria-label={words("assistant")}>
              <Markdown text={item.text} />
            </article>
          )}
        </div>
      ))}
    </main>
  );
}
