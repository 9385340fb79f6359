import { LatencyRecorder } from "../latency.ts";
import { EVENT_MARK, readSequence } from "./names.ts";
import type { Subscriber } from "./subscribers.ts";

const MARK = Buffer.from(EVENT_MARK);
const MARK_FIRST = MARK[0];
const MARK_LAST = MARK.at(-1);
const PROBLEMS_MAX = 5;
const SHOWN_BYTES = 200;

/** When the pings of one user were meant to be sent, by their number. */
export type Sent = number[];

/** Counts what subscribers receive, and how long after its ping. */
export class Deliveries {
  readonly #sent = new Map<number, Sent>();
  readonly #latency = new LatencyRecorder();
  readonly #problems: string[] = [];
  /** Told when one of the watched subscribers has received something. */
  onProgress: () => void = () => {};
  #fromMs = Number.POSITIVE_INFINITY;
  #toMs = Number.POSITIVE_INFINITY;
  #counting = false;
  #count = 0;
  #bytes = 0;
  #superseded = 0;
  // Where the number stood in the event before: it hardly ever moves, and looking there is cheaper than searching.
  #offset = 0;

  /** The next ping of a user: its number, once its time is noted. */
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

  /** Events of the window's pings still count for its latency afterwards. */
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

  /** One event, at `start` to `end` of what has just arrived. */
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

  /** A newer state makes up for the older ones that were never sent. */
  #advance(subscriber: Subscriber, sequence: number, nowMs: number): void {
    const sent = this.#sent.get(subscriber.user);
    // A subscriber is told where things stand when it comes; that is no delivery of a ping before it.
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

  /** Comments are part of the deal, anything else is not. */
  #other(bytes: Buffer, start: number, end: number): void {
    const text = bytes.toString("utf8", start, Math.min(end, start + SHOWN_BYTES));
    if (text.includes("error") || text.includes("reset")) this.problem(`a subscriber got ${text}`);
  }
}
