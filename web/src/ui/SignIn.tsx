import { useState } from "react";

import { session } from "../chat/api";
import { useWords } from "../words";

export function SignIn() {
  const words = useWords();
  const [key, setKey] = useState("");
  return (
    <main className="sign-in">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (key.trim()) session.enter(key.trim());
        }}
      >
        <img src="/favicon.svg" alt="" width="48" height="48" />
        <h1>{words("keyTitle")}</h1>
        <label>
          <span>{words("keyLabel")}</span>
          <input
            type="password"
            autoComplete="current-password"
            autoFocus
            value={key}
            aria-describedby="key-hint"
            aria-invalid={session.wasRefused}
            onChange={(event) => setKey(event.target.value)}
          />
        </label>
        {session.wasRefused && <p role="alert">{words("keyRefused")}</p>}
        <p id="key-hint">{words("keyHint")}</p>
        <button type="submit" className="primary">
          {words("keyEnter")}
        </button>
      </form>
    </main>
  );
}
