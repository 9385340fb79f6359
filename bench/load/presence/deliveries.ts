import { LatencyRecorder } from "../latency.ts";
import { EVENT_MARK, readSequence } from "./names.ts";
import type { Subscriber } from "./subscribers.ts";

const MARK = Buffer.from(EVENT_MARK);
const MARK_FIRST = MARK[0];
const MARK_LAST = MARK.at(-1);
const PROBLEMS_MAX = 5;
const SHOWN_BYTES = 200;

/** Intended send times of one user's pings, by their number. */
export type Sent = number[];

/** Counts the events that subscribers receive, and their latency since the ping. */
export class Deliveries {
  readonly #sent = new Map<number, Sent>();
  readonly #latency = new LatencyRecorder();
  readonly #problems: string[] = [];
  /** Called when one of the watched subscribers has received an event. */
  onProgress: () => void = () => {};
  #fromMs = Number.POSITIVE_INFINITY;
  #toMs = Number.POSITIVE_INFINITY;
  #counting = false;
  #count = 0;
  #bytes = 0;
  #superseded = 0;
  // Offset of the number in the previous event. It rarely changes, and trying it first saves a
  // search.
  #offset = 0;

  /** Records the time of a user's next ping and returns its number. */
  send(user: number, intendedAtMs: number): number {
    let sent = this.#sent.get(user);
    if (sent === undefined) this.#sent.set(user, (sent = []));
    return sent.push(intendedAtMs) - 1;
  }

  lastSent(user: number): number {
    return (this.#sent.get(user)?.length ?? 0) - 1;
  }

  openWindow(): void {
    this.#latency.reset();
    this.#count = 0;
    this.#bytes = 0;
    this.#superseded = 0;
    this.#fromMs = performance.now();
    this.#toMs = Number.POSITIVE_INFINITY;
    this.#counting = true;
  }

  /**
   * Ends the window and returns its length in seconds. Later events of its pings still count for
   * the latency.
   */
  closeWindow(): number {
    this.#toMs = performance.now();
    this.#counting = false;
    return (this.#toMs - this.#fromMs) / 1000;
  }

  result() {
    return {
      deliveries: this.#count,
      deliveredBytes: this.#bytes,
      latency: this.#latency.summary(),
      superseded: this.#superseded,
    };
  }

  /** Handles one event, which is at `start` to `end` of the bytes that have arrived. */
  received(subscriber: Subscriber, bytes: Buffer, start: number, end: number, nowMs: number): void {
    const offset = this.#findNumber(bytes, start, end);
    const sequence = offset < 0 ? Number.NaN : readSequence(bytes, offset);
    if (Number.isNaN(sequence)) {
      this.#other(bytes, start, end);
      return;
    }
    if (this.#counting) {
      this.#count++;
      this.#bytes += end - start;
    }
    if (sequence > subscriber.newest) this.#advance(subscriber, sequence, nowMs);
    if (subscriber.watched) this.onProgress();
  }

  problem(text: string): void {
    if (this.#problems.length < PROBLEMS_MAX) this.#problems.push(text);
  }

  get problems(): string[] {
    return this.#problems;
  }

  /** Records latencies up to a ping: a newer state makes up for older ones that were skipped. */
  #advance(subscriber: Subscriber, sequence: number, nowMs: number): void {
    const sent = this.#sent.get(subscriber.user);
    // The first event is the state at the time of subscribing, not the delivery of earlier pings.
    const from = subscriber.newest < 0 ? sequence : subscriber.newest + 1;
    for (let each = from; each <= sequence; each++) {
      const intendedAtMs = sent?.[each];
      if (intendedAtMs === undefined || intendedAtMs < this.#fromMs || intendedAtMs >= this.#toMs)
        continue;
      this.#latency.recordMs(nowMs - intendedAtMs);
      if (each < sequence) this.#superseded++;
    }
    subscriber.newest = sequence;
  }

  #findNumber(bytes: Buffer, start: number, end: number): number {
    const guess = start + this.#offset;
    const first = guess - MARK.length;
    if (bytes[first] === MARK_FIRST && bytes[guess - 1] === MARK_LAST && guess < end) return guess;
    const found = bytes.indexOf(MARK, start);
    if (found < 0 || found >= end) return -1;
    this.#offset = found + MARK.length - start;
    return found + MARK.length;
  }

  /** Handles bytes other than events: comments are expected, errors and resets are problems. */
  #other(bytes: Buffer, start: number, end: number): void {
    const text = bytes.toString("utf8", start, Math.min(end, start + SHOWN_BYTES));
    if (text.includes("error") || text.includes("reset")) this.problem(`a subscriber got ${text}`);
  }
}
