import { type Clock } from "../../platform/clock.ts";

const RESUME_MS = 600_000;
/**
 * Time within which the order of events may differ between processes: the bus's delay plus the
 * difference of their clocks.
 */
const OVERLAP_MS = 2000;
const OVERLAP_US = OVERLAP_MS * 1000;
const ID = /^(\d{1,13})\.(\d{3})-([0-9a-z]{1,8})-([0-9a-z]{1,8})-([0-9a-z]{1,4})$/;

/**
 * Parts of the last event id that a subscriber got: a time in epoch microseconds, the tag of the
 * process that issued it, how many times that process had read users from the stores by then, and a
 * hash of the event's user.
 */
export type Since = { us: number; tag: string; reads: number; user: string };

/** Issues a process's event ids: ascending, near the event's time, comparable between processes. */
export class EventIds {
  readonly #clock: Clock;
  #tag = newTag();
  #last = 0;
  #reads = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * Counts a read of users from the stores: earlier ids do not tell what of these users was sent.
   */
  nextRead(): number {
    return ++this.#reads;
  }

  /** Returns a new id, in epoch microseconds, for an event at that time in epoch ms. */
  next(atMs: number): number {
    const us = this.#bounded(atMs);
    this.#last = Math.max(this.#last + 1, us);
    return this.#last;
  }

  /**
   * Returns the id of an event of another process at that time; ids issued from now on are higher.
   */
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
   * Returns whether a subscriber that was at `since` lacks a user's change with the id `us`; `read`
   * is the number of the read that loaded the user. Changes from another process, or from before
   * that read, may have come in another order: those within the overlap are sent again.
   */
  isNews(us: number, userid: string, since: Since, read: number): boolean {
    if (since.tag === this.#tag && since.reads >= read) return us > since.us;
    // The order of one user's events is known: their times ascend on every process.
    if (since.user === hash(userid)) return us > since.us;
    return us > since.us - OVERLAP_US;
  }

  /**
   * Keeps ids near the present. If the clock was set back they start again with a new tag, like
   * those of another process.
   */
  #bounded(atMs: number): number {
    const boundUs = Math.round((this.#clock.epochMs() + OVERLAP_MS) * 1000);
    if (this.#last > boundUs) {
      this.#tag = newTag();
      this.#last = 0;
    }
    return Math.min(Math.round(atMs * 1000), boundUs);
  }
}

/** Parses a Last-Event-ID. Returns undefined if it is malformed or too old to resume from. */
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
