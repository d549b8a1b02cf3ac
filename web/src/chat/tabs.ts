/** What one tab did, the others of this browser hear at once. */

const channel = new BroadcastChannel("companion");

/** This conversation began a turn, ended one, or changed otherwise. */
export function tell(conversation: string): void {
  channel.postMessage(conversation);
}

export function hear(listener: (conversation: string) => void): void {
  channel.addEventListener("message", (event: MessageEvent<string>) => listener(event.data));
}
