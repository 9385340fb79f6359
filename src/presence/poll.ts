import { type Bus } from "../platform/bus.ts";
import { type Clock } from "../platform/clock.ts";
import { type Log } from "../platform/log.ts";
import { warnRarely } from "../platform/rare-warnings.ts";
import { type Hub } from "./hub.ts";

// With the second in which a ping reaches the database: up to two seconds late.
const EVERY_MS = 700;
// Of processes that lost the bus at the same moment.
const JITTER_MS = 200;

export type PollDeps = { bus: Bus; hub: Hub; clock: Clock; log: Log };

/** Reads what is watched again and again while the bus does not tell everything. It rests at least as long as the reading took. */
export class Poll {
  readonly #deps: PollDeps;
  #nextMs = 0;
  #isReading = false;

  constructor(deps: PollDeps) {
    this.#deps = deps;
  }

  /** To be called some times a second. */
  tick(): void {
    const { bus, hub, clock, log } = this.#deps;
    const nowMs = clock.elapsedMs();
    if (bus.hearsAll || this.#isReading || nowMs < this.#nextMs) return;
    this.#isReading = true;
    hub
      .poll()
      .catch((error: unknown) => warnRarely(log, { err: error }, "presence not read again"))
      .finally(() => {
        const tookMs = clock.elapsedMs() - nowMs;
        const pauseMs = Math.max(tookMs, EVERY_MS - tookMs);
        this.#nextMs = clock.elapsedMs() + pauseMs + Math.random() * JITTER_MS;
        this.#isReading = false;
      });
  }

  /** Reads some users now, if what is known of them may be old. */
  async refresh(userids: string[]): Promise<void> {
    if (!this.#deps.bus.hearsAll) await this.#deps.hub.poll(userids);
  }
}
