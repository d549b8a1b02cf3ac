/** What a screen reader is told without looking for it. */

import { Store, useStore } from "../chat/store";

class Announcements extends Store {
  text = "";

  say(text: string): void {
    this.text = this.text === text ? `${text}\u00a0` : text; // the same words twice are said twice
    this.changed();
  }
}

const announcements = new Announcements();

export function announce(text: string): void {
  announcements.say(text);
}

export function LiveRegion() {
  const text = useStore(announcements, (store) => store.text);
  return (
    <div className="hidden" aria-live="polite" aria-atomic="true" data-testid="live">
      {text}
    </div>
  );
}
