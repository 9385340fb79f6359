const RESUME_MS = 600_000;
const AHEAD_MS = 60_000;
/** How far the order of events may differ between processes: the bus's delay and the difference of their clocks. */
const OVERLAP_US = 2_000_000;
const ID = /^(\d{1,13})\.(\d{3})-([0-9a-z]{1,8})$/;

/** Where a subscriber was: a moment in epoch microseconds, and the process that counted it. */
export type Since = { us: number; tag: string };

/** The ids that one process gives to events: rising, near the time of what they tell, and comparable between processes. */
export class EventIds {
  readonly #tag = crypto.getRandomValues(new Uint32Array(1))[0]?.toString(36) ?? "";
  #last = 0;

  get last(): number {
    return this.#last;
  }

  /** A new one for what happened at that time in epoch ms, in epoch microseconds. */
  next(atMs: number): number {
    this.#last = Math.max(this.#last + 1, Math.round(atMs * 1000));
    return this.#last;
  }

  /** The id of what happened at that time elsewhere; those that are given from now on are higher. */
  observe(atMs: number): number {
    const us = Math.round(atMs * 1000);
    this.#last = Math.max(this.#last, us);
    return us;
  }

  text(us: number): string {
    const ms = Math.floor(us / 1000);
    return `${ms}.${String(us - ms * 1000).padStart(3, "0")}-${this.#tag}`;
  }

  /**
   * Whether a subscriber that was at `since` lacks what has the id `us`. `knownFrom`: from there on this process has seen every change
   * of the user. What another process counted, or this one did not see, may have come in another order, so that the overlap is sent again.
   */
  isNews(us: number, since: Since, knownFrom: number): boolean {
    if (since.tag === this.#tag && since.us >= knownFrom) return us > since.us;
    return us !== since.us && us > since.us - OVERLAP_US;
  }
}

/** What a Last-Event-ID says. Undefined when it is none of ours or too old to tell what changed since. */
export function parseEventId(id: string, nowMs: number): Since | undefined {
  const [, ms, us, tag] = ID.exec(id) ?? [];
  if (ms === undefined || us === undefined || tag === undefined) return undefined;
  const at = Number(ms);
  if (at < nowMs - RESUME_MS || at > nowMs + AHEAD_MS) return undefined;
  return { us: at * 1000 + Number(us), tag };
}
