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
    createRoot(root).render(<App />);
    void app.start();
  });
}
