import { useEffect, useRef, useState } from "react";

import { session } from "../chat/api";
import { dictionary, LANGUAGES, useWords } from "../words";
import { type Appearance, appearance, setAppearance } from "./settings";
import { Cross } from "./icons";

export function SettingsDialog({ onClose }: { onClose: () => void }) {
  const words = useWords();
  const dialog = useRef<HTMLDialogElement>(null);
  const [look, setLook] = useState(appearance());
  useEffect(() => dialog.current?.showModal(), []);
  const control = /Mac|iPhone|iPad/.test(navigator.platform) ? "⌘" : "Ctrl";

  return (
    <dialog ref={dialog} className="dialog" aria-labelledby="settings-title" onClose={onClose}>
      <header>
        <h2 id="settings-title">{words("settings")}</h2>
        <button type="button" className="quiet" aria-label={words("close")} onClick={() => dialog.current?.close()}>
          <Cross />
        </button>
      </header>
      <label className="field">
        <span>{words("appearance")}</span>
        <select
          value={look}
          onChange={(event) => {
            const choice = event.target.value as Appearance;
            setAppearance(choice);
            setLook(choice);
          }}
        >
          <option value="system">{words("appearanceSystem")}</option>
          <option value="light">{words("appearanceLight")}</option>
          <option value="dark">{words("appearanceDark")}</option>
        </select>
      </label>
      <label className="field">
        <span>{words("languageLabel")}</span>
        <select value={dictionary.chosen ?? ""} onChange={(event) => void dictionary.choose(event.target.value || null)}>
          <option value="">{words("languageSystem")}</option>
          {Object.entries(LANGUAGES).map(([code, name]) => (
            <option key={code} value={code} lang={code}>
              {name}
            </option>
          ))}
        </select>
      </label>
      <h3>{words("shortcuts")}</h3>
      <dl className="shortcuts">
        <Shortcut keys={[control, "Shift", "O"]} meaning={words("shortcutNew")} />
        <Shortcut keys={[control, "K"]} meaning={words("shortcutSearch")} />
        <Shortcut keys={["/"]} meaning={words("shortcutWrite")} />
        <Shortcut keys={["Enter"]} meaning={words("shortcutSend")} />
        <Shortcut keys={["Shift", "Enter"]} meaning={words("shortcutLine")} />
        <Shortcut keys={["Esc"]} meaning={words("shortcutStop")} />
      </dl>
      {session.key && (
        <button type="button" className="plain wide" onClick={() => void session.leave()}>
          {words("signOut")}
        </button>
      )}
    </dialog>
  );
}

function Shortcut({ keys, meaning }: { keys: string[]; meaning: string }) {
  return (
    <div>
      <dt>{meaning}</dt>
      <dd>
        {keys.map((key) => (
          <kbd key={key}>{key}</kbd>
        ))}
      </dd>
    </div>
  );
}
