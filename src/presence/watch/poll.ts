import { type Bus } from "../../platform/bus/bus.ts";
import { type Clock } from "../../platform/clock.ts";
import { type Log } from "../../platform/logger.ts";
import { warnRarely } from "../../platform/rare-warnings.ts";
import { type Hub } from "./hub.ts";

// Poll interval. With the up to 1 s until a ping reaches the database, changes are up to two
// seconds late.
const EVERY_MS = 700;
// Random delay that spreads the polls of processes that lost the bus at the same moment.
const JITTER_MS = 200;

export type PollDeps = { bus: Bus; hub: Hub; clock: Clock; log: Log };

/**
 * Polls the stores for watched users while the bus may lose messages. Pauses at least as long as
 * the last poll took.
 */
export class Poll {
  readonly #deps: PollDeps;
  #nextMs = 0;
  #isReading = false;

  constructor(deps: PollDeps) {
    this.#deps = deps;
  }

  /** Must be called several times a second. */
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

  /** Reads some users now if the state in memory may be stale. */
  async refresh(userids: string[]): Promise<void> {
    if (!this.#deps.bus.hearsAll) await this.#deps.hub.poll(userids);
  }
}
