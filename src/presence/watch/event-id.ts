import { type Clock } from "../../platform/clock.ts";

const RESUME_MS = 600_000;
/** How far the order of events may differ between processes: the bus's delay and the difference of their clocks. */
const OVERLAP_MS = 2000;
const OVERLAP_US = OVERLAP_MS * 1000;
const ID = /^(\d{1,13})\.(\d{3})-([0-9a-z]{1,8})-([0-9a-z]{1,8})-([0-9a-z]{1,4})$/;

/**
 * Where a subscriber was: a moment in epoch microseconds, the process that counted it, how many times that had read users from the
 * stores by then, and a hash of the user whose event it was.
 */
export type Since = { us: number; tag: string; reads: number; user: string };

/** The ids that one process gives to events: rising, near the time of what they tell, and comparable between processes. */
export class EventIds {
  readonly #clock: Clock;
  #tag = newTag();
  #last = 0;
  #reads = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Another time that users were read: ids that were told before know nothing of their order. */
  nextRead(): number {
    return ++this.#reads;
  }

  /** A new one for what happened at that time in epoch ms, in epoch microseconds. */
  next(atMs: number): number {
    const us = this.#bounded(atMs);
    this.#last = Math.max(this.#last + 1, us);
    return this.#last;
  }

  /** The id of what happened at that time elsewhere; those that are given from now on are higher. */
  observe(atMs: number): number {
    const us = this.#bounded(atMs);
    this.#last = Math.max(this.#last, us);
    return us;
  }

  text(us: number, userid: string): string {
    const ms = Math.floor(us / 1000);
    const reads = this.#reads.toString(36);
    return `${ms}.${String(us - ms * 1000).padStart(3, "0")}-${this.#tag}-${reads}-${hash(userid)}`;
  }

  /**
   * Whether a subscriber that was at `since` lacks a user's change with the id `us`; `read` is the number of the read that the user
   * is known from. What another process counted, or this one did not see, may have come in another order: the overlap is sent again.
   */
  isNews(us: number, userid: string, since: Since, read: number): boolean {
    if (since.tag === this.#tag && since.reads >= read) return us > since.us;
    // Of the user whose event it was the order is known: their times rise on every process.
    if (since.user === hash(userid)) return us > since.us;
    return us > since.us - OVERLAP_US;
  }

  /** Ids stay near the present. When the clock was set back they begin anew, as another process's. */
  #bounded(atMs: number): number {
    const boundUs = Math.round((this.#clock.epochMs() + OVERLAP_MS) * 1000);
    if (this.#last > boundUs) {
      this.#tag = newTag();
      this.#last = 0;
    }
    return Math.min(Math.round(atMs * 1000), boundUs);
  }
}

/** What a Last-Event-ID says. Undefined when it is none of ours or too old to tell what changed since. */
export function parseEventId(id: string, nowMs: number): Since | undefined {
  const [, ms, us, tag, reads, user] = ID.exec(id) ?? [];
  if (!ms || !us || !tag || !reads || !user) return undefined;
  const at = Number(ms);
  if (at < nowMs - RESUME_MS || at > nowMs + OVERLAP_MS) return undefined;
  return { us: at * 1000 + Number(us), tag, reads: Number.parseInt(reads, 36), user };
}

function newTag(): string {
  return crypto.getRandomValues(new Uint32Array(1))[0]?.toString(36) ?? "";
}

function hash(userid: string): string {
  return (Bun.hash.crc32(userid) % 36 ** 4).toString(36);
}
