import "./styles/page.css";

import { createRoot } from "react-dom/client";

import { app } from "./chat/app";
import { App } from "./ui/App";
import { applyAppearance } from "./ui/settings";
import { dictionary } from "./words";

applyAppearance();
const root = document.getElementById("root");
if (root) {
  void dictionary.load().then(() => {
    const sharedId = /^\/s\/([^/]+)\/?$/.exec(location.pathname)?.[1] ?? null;
    createRoot(root).render(<App sharedId={sharedId} />);
    if (!sharedId) void app.start();
  });
}
