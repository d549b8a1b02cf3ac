/** How the page looks, as this user wants it. */

export type Appearance = "system" | "light" | "dark";

const SAVED = "companion.appearance";

export function appearance(): Appearance {
  const saved = localStorage.getItem(SAVED);
  return saved === "light" || saved === "dark" ? saved : "system";
}

export function setAppearance(choice: Appearance): void {
  localStorage.setItem(SAVED, choice);
  applyAppearance();
}

export function applyAppearance(): void {
  const choice = appearance();
  document.documentElement.style.colorScheme = choice === "system" ? "" : choice;
}
