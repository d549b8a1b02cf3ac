/** The links to snapshots of a conversation, and the way to take each of them back. */

import { useEffect, useRef, useState } from "react";

import { api } from "../chat/api";
import type { Share } from "../chat/types";
import { dictionary, useWords } from "../words";
import { CopyButton } from "./CopyButton";
import { Dialog } from "./Dialog";

export default function ShareDialog({ conversation, onClose }: { conversation: string; onClose: () => void }) {
  const words = useWords();
  /** Null: not known yet. */
  const [shares, setShares] = useState<readonly Share[] | null>(null);
  const [state, setState] = useState<"working" | "done" | "failed">("working");
  const isAsked = useRef(false);
  useEffect(() => {
    if (isAsked.current) return;
    isAsked.current = true;
    work(async () => {
      const found = await api.shares(conversation);
      setShares(found.length ? found : [await api.share(conversation)]);
    });
  }, [conversation]);

  function work(act: () => Promise<void>): void {
    setState("working");
    act().then(
      () => setState("done"),
      () => setState("failed"),
    );
  }

  async function make(): Promise<void> {
    const made = await api.share(conversation);
    setShares((known) => [made, ...(known ?? [])]);
  }

  async function revoke(id: string): Promise<void> {
    await api.revokeShare(id); // until then the link works: it stays, and so does the way to take it back
    setShares((known) => known?.filter((each) => each.id !== id) ?? null);
  }

  return (
    <Dialog title={words("share")} onClose={onClose}>
      <p className="muted">{words(shares?.length === 0 ? "shareRevoked" : "shareMeans")}</p>
      {state === "working" && !shares && <p>{words("loading")}</p>}
      {state === "failed" && <p role="alert">{words("failed")}</p>}
      {shares?.map((share) => (
        <Link key={share.id} share={share} isBusy={state === "working"} onRevoke={() => work(() => revoke(share.id))} />
      ))}
      {shares && (
        <button type="button" className="plain wide" disabled={state === "working"} onClick={() => work(make)}>
          {words("shareAgain")}
        </button>
      )}
    </Dialog>
  );
}

function Link({ share, isBusy, onRevoke }: { share: Share; isBusy: boolean; onRevoke: () => void }) {
  const words = useWords();
  const link = `${location.origin}/s/${share.id}`;
  const format = new Intl.DateTimeFormat(dictionary.language, { dateStyle: "medium", timeStyle: "short" });
  return (
    <>
      <div className="link-field">
        <input readOnly value={link} aria-label={words("shareLink")} onFocus={(event) => event.target.select()} />
        <CopyButton text={link} label={words("shareCopy")} />
      </div>
      <div className="field muted">
        {words("sharedOn", { day: format.format(share.created_at * 1000) })}
        <button type="button" className="plain" disabled={isBusy} onClick={onRevoke}>
          {words("shareRevoke")}
        </button>
      </div>
    </>
  );
}
