import { useState } from "react";

import { session } from "../chat/api";
import { dictionary, LANGUAGES, useWords } from "../words";
import { Dialog } from "./Dialog";
import { type Appearance, appearance, setAppearance } from "./settings";

export function SettingsDialog({ onClose }: { onClose: () => void }) {
  const words = useWords();
  const [look, setLook] = useState(appearance());
  const control = /Mac|iPhone|iPad/.test(navigator.platform) ? "⌘" : "Ctrl";

  return (
    <Dialog title={words("settings")} onClose={onClose}>
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
    </Dialog>
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
