/** A link to a snapshot of a conversation, and the way to take it back. */

import { useEffect, useRef, useState } from "react";

import { api } from "../chat/api";
import type { Share } from "../chat/types";
import { useWords } from "../words";
import { CopyButton } from "./CopyButton";
import { Dialog } from "./Dialog";

export default function ShareDialog({ conversation, onClose }: { conversation: string; onClose: () => void }) {
  const words = useWords();
  const [share, setShare] = useState<Share | null>(null);
  const [state, setState] = useState<"making" | "made" | "revoked" | "failed">("making");
  const [isStillShared, setStillShared] = useState(false);
  const isAsked = useRef(false);
  useEffect(() => {
    if (isAsked.current) return;
    isAsked.current = true;
    api.share(conversation).then(
      (made) => {
        setShare(made);
        setState("made");
      },
      () => setState("failed"),
    );
  }, [conversation]);
  const link = share ? `${location.origin}/s/${share.id}` : "";

  return (
    <Dialog title={words("share")} onClose={onClose}>
      <p className="muted">{words(state === "revoked" ? "shareRevoked" : "shareMeans")}</p>
      {state === "making" && <p>{words("loading")}</p>}
      {(state === "failed" || (state === "made" && isStillShared)) && <p role="alert">{words("failed")}</p>}
      {state === "made" && share && (
        <>
          <div className="link-field">
            <input readOnly value={link} aria-label={words("shareLink")} onFocus={(event) => event.target.select()} />
            <CopyButton text={link} label={words("shareCopy")} />
          </div>
          <button
            type="button"
            className="plain wide"
            onClick={() => {
              api.revokeShare(share.id).then(
                () => setState("revoked"),
                () => setStillShared(true), // the link works: it stays, and so does the way to take it back
              );
            }}
          >
            {words("shareRevoke")}
          </button>
        </>
      )}
    </Dialog>
  );
}
