import { type Clock } from "../../platform/clock.ts";
import { type Subscriber } from "./subscriber.ts";

const KEEP_ALIVE_MS = 25_000;
const SLOTS = 100;
const SLOT_MS = KEEP_ALIVE_MS / SLOTS;
const RETRY_MS_MIN = 500;
const RETRY_MS_SPREAD = 4500;

/** Holds all subscribers of this process and checks them in turns, all within KEEP_ALIVE_MS. */
export class Connections {
  readonly #clock: Clock;
  readonly #slots = Array.from({ length: SLOTS }, () => new Set<Subscriber>());
  readonly #slotOf = new Map<Subscriber, number>();
  #next = 0;
  #turn: number;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#turn = Math.floor(clock.elapsedMs() / SLOT_MS);
  }

  add(subscriber: Subscriber): void {
    this.#next = (this.#next + 1) % SLOTS;
    this.#slots[this.#next]?.add(subscriber);
    this.#slotOf.set(subscriber, this.#next);
  }

  delete(subscriber: Subscriber): void {
    const slot = this.#slotOf.get(subscriber);
    if (slot === undefined) return;
    this.#slots[slot]?.delete(subscriber);
    this.#slotOf.delete(subscriber);
  }

  /** Must be called several times a second. */
  tick(): void {
    const nowMs = this.#clock.elapsedMs();
    const epochMs = this.#clock.epochMs();
    const turn = Math.floor(nowMs / SLOT_MS);
    for (let left = Math.min(turn - this.#turn, SLOTS); left > 0; left--)
      for (const subscriber of this.#slots[(turn - left + 1) % SLOTS] ?? []) {
        subscriber.check(nowMs, epochMs);
        subscriber.keepAlive();
      }
    this.#turn = turn;
  }

  /**
   * Disconnects all clients with a random retry delay; returns how many are blocked and will not
   * see it.
   */
  disconnectAll(): number {
    let blocked = 0;
    for (const subscriber of this.#slotOf.keys()) {
      if (subscriber.isBlocked) blocked++;
      subscriber.disconnect(RETRY_MS_MIN + Math.floor(Math.random() * RETRY_MS_SPREAD));
    }
    return blocked;
  }
}
