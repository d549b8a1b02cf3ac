/**
 * One conversation as the page holds it: its turns, what is being sent, what is being streamed.
 *
 * A send is kept in the outbox, under a key of its own, until the server has accepted it; it is sent again with that key
 * for as long as its fate is not known. A stream is followed by number: wherever it breaks, it is asked for again from there.
 */

import type { ResponseStreamEvent } from "openai/resources/responses/responses";

import { api, codeOf, isPassing, statusOf } from "./api";
import { connection } from "./connection";
import { RowMaker, type Row, sendingRows, type SendState } from "./rows";
import { drafts, newKey, outbox, type Sending } from "./saved";
import { Store } from "./store";
import { tell } from "./tabs";
import { applyEvent, childrenOf, contentOf, isRunning, leafOf, newTurn, pathTo, tipOf } from "./turns";
import { type Conversation, isFinal, type Page, type Part, type Turn } from "./types";

const PAGE = 50;
/** Turns that are loaded before a conversation is shown, if it has them. */
const ENOUGH = 20;
const TITLE_AFTER = [300, 1200, 4000];
const SILENCE_MS = 20_000;

export class Thread extends Store {
  /** Names this object, also before the conversation has an id. */
  readonly key = newKey();
  id: string | null;
  header: Conversation | null = null;
  rows: readonly Row[] = [];
  isLoaded: boolean;
  isLoadingOlder = false;
  hasOlder = false;
  /** Why the conversation could not be loaded. */
  error: unknown = null;
  /** The stream broke and is being asked for again. */
  isReconnecting = false;
  sending: { message: Sending; state: SendState; error: unknown } | null = null;
  /** Called when the header may have changed: title, order, running. */
  onTouched: (thread: Thread) => void = () => {};

  #turns = new Map<string, Turn>();
  #children = new Map<string, Turn[]>();
  #areChildrenStale = false;
  #oldest: string | null = null;
  #tip: string | null = null;
  #rowMaker = new RowMaker();
  #rowKeys = new Map<string, string>();
  #isOpen = false;
  #following: { id: string; abort: AbortController } | null = null;
  #seen = new Map<string, number>();
  #heard = 0;
  #loading: Promise<void> | null = null;
  #attempt: AbortController | null = null;
  #stopWhenAccepted = false;
  /** The turn that was asked to stop: how it ended may be learned anywhere, or never. */
  #stopping: string | null = null;

  constructor(id: string | null) {
    super();
    this.id = id;
    this.isLoaded = id === null;
  }

  get draftKey(): string {
    return this.id ?? "new";
  }

  get tip(): Turn | undefined {
    return this.#tip ? this.#turns.get(this.#tip) : undefined;
  }

  /** Something is being sent or answered: the next message has to wait. */
  get isBusy(): boolean {
    return isRunning(this.tip) || (this.sending !== null && this.sending.state !== "refused");
  }

  get isStopping(): boolean {
    return isRunning(this.tip) && this.#stopping === this.#tip;
  }

  turn(id: string): Turn | undefined {
    return this.#turns.get(id);
  }

  // what is shown

  /** On the screen now: follow what runs. */
  open(): void {
    this.#isOpen = true;
    if (this.id) void this.refresh();
  }

  /** No longer on the screen: a stream nobody looks at is not held open; it is resumed where it was. */
  close(): void {
    this.#isOpen = false;
    this.#following?.abort.abort();
    this.#following = null;
  }

  /** Read what is new, from wherever it came. */
  refresh(): Promise<void> {
    this.#loading ??= this.#refresh().finally(() => (this.#loading = null));
    return this.#loading;
  }

  async #refresh(): Promise<void> {
    const id = this.id;
    if (!id) return;
    try {
      const before = this.header;
      const header = await api.conversation(id);
      if (before && this.error === null && this.#isSame(before, header)) {
        this.header = header;
        if (before.title !== header.title) this.onTouched(this);
        this.#followRunning();
        this.changed();
        return;
      }
      const page = await api.turns(id, { order: "desc", limit: PAGE });
      const isFirst = this.header === null || this.#hasGap(page);
      const isMoved = this.header?.head !== header.head || this.header?.running !== header.running;
      this.header = header;
      this.#merge(page.data);
      if (isFirst) {
        this.#oldest = page.last_id;
        this.hasOlder = page.has_more;
      }
      const shown = header.running ?? header.head;
      while (this.hasOlder && shown && !this.#turns.has(shown)) await this.#older(id);
      if (isMoved && !isRunning(this.tip)) this.#tip = tipOf(this.#turns, header.head, header.running);
      while (this.hasOlder && pathTo(this.#turns, this.#tip).length < Math.min(ENOUGH, this.#turns.size)) await this.#older(id);
      this.error = null;
      this.isLoaded = true;
      this.#show();
      this.onTouched(this);
      this.#followRunning();
    } catch (error) {
      if (this.isLoaded && statusOf(error) !== 404) return; // what is shown stays; the next look will tell
      this.error = error;
      this.isLoaded = true;
      this.changed();
    }
  }

  /** Nothing new to read: a look that is repeated every few seconds costs one small request. */
  #isSame(before: Conversation, now: Conversation): boolean {
    const shown = now.running ?? now.head;
    const isKnown = shown === null || this.#turns.has(shown);
    return isKnown && before.updated_at === now.updated_at && before.head === now.head && before.running === now.running;
  }

  /** So much happened elsewhere that the newest page does not reach what is known: begin again. */
  #hasGap(page: Page<Turn>): boolean {
    const isGap = page.has_more && this.#turns.size > 0 && !page.data.some((turn) => this.#turns.has(turn.id));
    if (isGap) this.#turns.clear();
    return isGap;
  }

  async loadOlder(): Promise<void> {
    if (!this.id || !this.hasOlder || this.isLoadingOlder) return;
    this.isLoadingOlder = true;
    try {
      await this.#older(this.id);
    } catch (error) {
      if (!isPassing(error)) throw error;
      await connection.pause(2);
    } finally {
      this.isLoadingOlder = false;
      this.#show();
    }
  }

  async #older(id: string): Promise<void> {
    const page = await api.turns(id, { order: "desc", limit: PAGE * 2, ...(this.#oldest ? { after: this.#oldest } : {}) });
    this.#oldest = page.last_id ?? this.#oldest;
    this.hasOlder = page.has_more;
    this.#merge(page.data);
  }

  #merge(turns: Turn[]): void {
    for (const turn of turns) {
      const known = this.#turns.get(turn.id);
      // a running turn's record is empty until it ends: what was streamed is ahead of it
      if (known && !isFinal(turn.status)) continue;
      if (known && isFinal(known.status) && known.cost !== null) continue;
      this.#set(turn);
    }
  }

  #set(turn: Turn): void {
    const known = this.#turns.get(turn.id);
    if (!known || known.status !== turn.status) this.#areChildrenStale = true;
    this.#turns.set(turn.id, turn);
  }

  #show(isSoon = false): void {
    if (this.#areChildrenStale) {
      this.#children = childrenOf(this.#turns);
      this.#areChildrenStale = false;
    }
    const rows = this.#rowMaker.rows(pathTo(this.#turns, this.#tip), this.#children, this.#rowKeys);
    const { sending } = this;
    if (sending) {
      const after = sending.message.parent;
      const place = after === (this.#tip ?? null) ? rows.length : this.#placeBehind(rows, after);
      rows.splice(place, rows.length, ...sendingRows(sending.message, sending.state, sending.error));
    }
    this.rows = rows;
    if (isSoon) this.changedSoon();
    else this.changed();
  }

  #placeBehind(rows: Row[], turn: string | null): number {
    if (turn === null) return 0;
    return rows.findLastIndex((row) => "turn" in row && row.turn?.id === turn) + 1;
  }

  // sending

  /** The next message of the branch that is shown. */
  async send(content: Part[], model: string): Promise<void> {
    await this.#dispatch(content, model, this.tip?.id ?? null);
  }

  /** The same moment again in other words: a new branch. */
  async edit(turn: Turn, content: Part[], model: string): Promise<void> {
    await this.#dispatch(content, model, turn.parent);
  }

  /** The same words again: another answer, or a second try after a failure. */
  async again(turn: Turn, model: string): Promise<void> {
    await this.#dispatch(contentOf(turn), model, turn.parent);
  }

  async #dispatch(content: Part[], model: string, parent: string | null): Promise<void> {
    if (this.isBusy) return;
    const leftBehind = this.sending?.message;
    const message: Sending = {
      key: newKey(),
      conversation: this.id,
      parent,
      model,
      content,
      at: Date.now(),
    };
    this.sending = { message, state: "sending", error: null };
    this.#show();
    await outbox.put(message).catch(() => {}); // a browser that keeps nothing can still send
    // refused, and the user went on without it: the next page offers it, and sends nothing that nobody expects
    if (leftBehind) await outbox.put({ ...leftBehind, at: 0 }).catch(() => {});
    void this.deliver(message);
  }

  /** A message that lay too long for the server to still know its key: the user decides. */
  hold(message: Sending): void {
    this.sending = { message, state: "refused", error: null };
    this.#show();
  }

  /** Send until it is accepted or refused. Another tab may try as well: the key makes it one turn. */
  async deliver(message: Sending): Promise<void> {
    const work = () => this.#deliver(message);
    if (!("locks" in navigator)) return work();
    await navigator.locks.request(`send ${message.key}`, { ifAvailable: true }, (lock) => (lock ? work() : undefined));
  }

  async #deliver(message: Sending): Promise<void> {
    this.sending = { message, state: "sending", error: null };
    this.#show();
    const attempt = (this.#attempt = new AbortController());
    for (let tries = 0; !attempt.signal.aborted; tries += 1) {
      try {
        await this.#deliverOnce(message, attempt.signal);
        return;
      } catch (error) {
        if (attempt.signal.aborted || this.sending?.message.key !== message.key) return;
        const isLocked = statusOf(error) === 409;
        const isRefused = !(isPassing(error) || isLocked) || (statusOf(error) !== undefined && !isLocked && tries >= 3);
        this.sending = { message, state: isRefused ? "refused" : "waiting", error };
        this.#show();
        if (isRefused) {
          this.#stopWhenAccepted = false; // what the user sends next is another decision
          return;
        }
        if (isLocked && this.id) await this.#untilFree(attempt.signal);
        await connection.pause(Math.min(tries, 4), attempt.signal);
      }
    }
  }

  async #deliverOnce(message: Sending, signal: AbortSignal): Promise<void> {
    if (message.conversation === null) {
      const header = await api.createConversation(`${message.key}.conversation`);
      message.conversation = header.id;
      await outbox.put(message).catch(() => {});
      this.#adopt(header);
    }
    const stream = await api.send({ ...message, conversation: message.conversation }, signal);
    await this.#consume(stream, (turn) => this.#accepted(message, turn));
  }

  #adopt(header: Conversation): void {
    if (this.#isOpen) void drafts.move(this.draftKey, header.id).catch(() => {});
    this.id = header.id;
    this.header = header;
    this.onTouched(this);
    this.changed();
  }

  #accepted(message: Sending, id: string): void {
    if (!this.#turns.has(id)) {
      this.#rowKeys.set(id, message.key);
      const siblings = this.#children.get(message.parent ?? "") ?? [];
      this.#set(newTurn(id, message.parent, message.model, message.content, siblings));
    }
    this.#tip = id;
    if (this.sending?.message.key === message.key) this.sending = null;
    if (this.header) this.header = { ...this.header, running: id, updated_at: Date.now() / 1000 };
    if (this.#isOpen && this.#attempt) this.#following = { id, abort: this.#attempt };
    void outbox.drop(message.key).catch(() => {});
    if (this.id) tell(this.id);
    this.#show();
    this.onTouched(this);
    if (this.#stopWhenAccepted) void this.stop();
    this.#stopWhenAccepted = false;
  }

  /** Another turn holds the conversation: look at it until it has ended. */
  async #untilFree(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.refresh();
      if (!this.header?.running) return;
      await connection.pause(1, signal);
    }
  }

  /** Take back what was not accepted. Returns it, for the composer. */
  async takeBack(): Promise<Sending | null> {
    const { sending } = this;
    if (!sending) return null;
    this.#attempt?.abort();
    this.#stopWhenAccepted = false;
    this.sending = null;
    await outbox.drop(sending.message.key).catch(() => {});
    this.#show();
    return sending.message;
  }

  retry(): void {
    if (this.sending?.state !== "refused") return;
    void this.deliver(this.sending.message);
  }

  // following

  #followRunning(): void {
    const running = this.header?.running;
    if (!this.#isOpen || !running) return;
    // after a sleep a connection can be dead without saying so: in doubt ask again, numbers keep it in order
    if (this.#following?.id === running && Date.now() - this.#heard < SILENCE_MS) return;
    const turn = this.#turns.get(running);
    if (!turn || isFinal(turn.status)) return;
    void this.#follow(running);
  }

  async #follow(id: string): Promise<void> {
    const abort = new AbortController();
    this.#following?.abort.abort();
    this.#following = { id, abort };
    this.#heard = Date.now();
    try {
      for (let tries = 0; !abort.signal.aborted && isRunning(this.#turns.get(id)); tries += 1) {
        const before = this.#seen.get(id) ?? -1;
        try {
          if (tries > 0) await connection.pause(tries - 1, abort.signal);
          if (abort.signal.aborted) return;
          await this.#consume(await api.follow(id, before, abort.signal), () => {}, id);
        } catch (error) {
          if (abort.signal.aborted) return;
          if (statusOf(error) === 404) return void this.#lost(id);
          if (codeOf(error) === null && !isPassing(error)) throw error;
        }
        if ((this.#seen.get(id) ?? -1) > before) tries = 0;
        this.#setReconnecting(isRunning(this.#turns.get(id)));
      }
    } finally {
      if (this.#following?.abort === abort) this.#following = null;
      this.#setReconnecting(false);
    }
  }

  /** Take in a stream to its end. A break is an error, or an end without a terminal event: the caller asks again. */
  async #consume(
    stream: AsyncIterable<ResponseStreamEvent>,
    onId: (id: string) => void,
    known: string | null = null,
  ): Promise<void> {
    let id = known;
    try {
      for await (const event of stream) {
        if (!id && "response" in event) {
          id = event.response.id;
          onId(id);
        }
        if (id) this.#take(id, event);
        if (id && known === null && !this.#isOpen) break;
      }
    } catch (error) {
      if (!id || known !== null) throw error;
    }
    if (!id || known !== null || this.#following?.id !== id) return;
    this.#following = null;
    if (!this.#isOpen || !isRunning(this.#turns.get(id))) return;
    this.#setReconnecting(true);
    void this.#follow(id); // accepted: from here on it is followed like any other
  }

  #take(id: string, event: ResponseStreamEvent): void {
    this.#heard = Date.now();
    const number = "sequence_number" in event ? event.sequence_number : -1;
    const turn = this.#turns.get(id);
    if (!turn || isFinal(turn.status) || number <= (this.#seen.get(id) ?? -1)) return;
    this.#seen.set(id, number);
    const grown = applyEvent(turn, event);
    if (grown === turn) return;
    this.#set(grown);
    this.#setReconnecting(false);
    if (isFinal(grown.status)) void this.#ended(grown);
    this.#show(!isFinal(grown.status));
  }

  async #ended(turn: Turn): Promise<void> {
    if (this.header) {
      this.header = { ...this.header, running: null, head: turn.status === "failed" ? this.header.head : turn.id };
    }
    this.onTouched(this);
    if (!this.id) return;
    tell(this.id);
    await this.#readRecord(this.id, turn).catch(() => {}); // only what it cost: the next look has it too
    await this.#awaitTitle(this.id).catch(() => {});
  }

  /** What the stream does not tell: cost, times, notes. */
  async #readRecord(id: string, turn: Turn): Promise<void> {
    const page = await api.turns(id, { order: "asc", limit: 20, ...(turn.parent ? { after: turn.parent } : {}) });
    const record = page.data.find((found) => found.id === turn.id);
    if (!record || !isFinal(record.status)) return;
    this.#set(record);
    this.#show();
  }

  async #awaitTitle(id: string): Promise<void> {
    for (const pause of TITLE_AFTER) {
      if (this.header?.title) return;
      await new Promise((resolve) => setTimeout(resolve, pause));
      const header = await api.conversation(id);
      if (this.header) this.header = { ...this.header, title: header.title, updated_at: header.updated_at };
      this.onTouched(this);
      this.changed();
    }
  }

  #lost(id: string): void {
    this.#turns.delete(id);
    this.#areChildrenStale = true;
    this.header = null;
    void this.refresh();
  }

  #setReconnecting(is: boolean): void {
    if (this.isReconnecting === is) return;
    this.isReconnecting = is;
    this.changedSoon();
  }

  /** `onDelay` is called where that is not at once: the wish is kept until the server has heard it. */
  async stop(onDelay: () => void = () => {}): Promise<void> {
    const { tip } = this;
    if (this.sending) {
      this.#stopWhenAccepted = true;
      return;
    }
    if (!tip || isFinal(tip.status)) return;
    this.#stopping = tip.id;
    this.changed();
    try {
      await this.#cancel(tip.id, onDelay);
    } catch (error) {
      this.#stopping = null;
      this.changed();
      throw error;
    }
  }

  /** Ask until the server has heard it, or the answer has ended all the same. */
  async #cancel(id: string, onDelay: () => void): Promise<void> {
    for (let tries = 0; isRunning(this.#turns.get(id)); tries += 1) {
      try {
        await api.cancel(id);
        return;
      } catch (error) {
        if (!isPassing(error)) throw error;
        if (tries === 0) onDelay();
        await connection.pause(tries);
      }
    }
  }

  // branches

  /** Show the branch that this turn is part of, as far as it went. */
  async switchTo(turn: Turn): Promise<void> {
    if (this.isBusy || !this.id) return;
    const head = leafOf(this.#children, turn.id);
    this.#tip = head;
    this.#show();
    if (this.#turns.get(head)?.status === "failed") return;
    try {
      this.header = await api.updateConversation(this.id, { head });
      tell(this.id);
    } catch (error) {
      if (!isPassing(error)) throw error; // shown here; what is said next names its parent anyway
    }
  }

  /** A title or a pin that the user gave it in the list. */
  take({ title, pinned }: Conversation): void {
    if (!this.header) return;
    this.header = { ...this.header, title, pinned };
    this.changed();
  }

  /** The draft was sent: it is the outbox's business now. */
  forgetDraft(where: string): void {
    drafts.keep(where, "");
    void drafts.keepFiles(where, []);
  }
}
