import { unlessAborted } from "../time-limit.ts";
import { type Bus } from "../bus/bus.ts";
import { type Clock } from "../clock.ts";
import { SKEW_MS_TOLD } from "../database/database-clock.ts";
import { type Sql } from "../database/database.ts";
import { type Log } from "../logger.ts";
import { warnRarely } from "../rare-warnings.ts";
import { type ProcessMetrics } from "../telemetry/process-metrics.ts";
import { type StoreHealth } from "../objects/store-health.ts";

const CHECK_MS = 2000;

type State = "ok" | "down";
/**
 * Result of a check. `bus` takes the place of `redis` if PostgreSQL carries the messages between
 * processes.
 */
export type Check = { postgres: State; objects: State; redis?: State; bus?: State };

export type HealthDeps = {
  sql: Sql;
  objects: StoreHealth;
  /** Bus to other processes, if this process listens to it. */
  bus?: Bus;
  clock: Clock;
  metrics: ProcessMetrics;
  log: Log;
};

/** Checks whether this process can do its work. Each dependency must answer within 2 seconds. */
export class Health {
  readonly #deps: HealthDeps;
  /** Set when shutdown begins: load balancers must send no more requests. */
  stopping = false;

  constructor(deps: HealthDeps) {
    this.#deps = deps;
    const { metrics, clock } = deps;
    metrics.watchProcess(async () => await this.check(), deps.sql);
    metrics.watch(
      "clock_skew_seconds",
      "How far this machine's clock is ahead of the database's, whose time is used; negative when it is behind.",
      () => (clock.skewMs?.() ?? 0) / 1000,
      { aggregator: "max" },
    );
  }

  /** Returns the body of `/readyz`, and whether the process can take requests. */
  async report(): Promise<{ isReady: boolean; body: { status: string; clock?: string } & Check }> {
    const checks = await this.check();
    const isReady = !this.stopping && checks.postgres === "ok" && checks.objects === "ok";
    const { bus, ...named } = checks;
    const clock = skewText(this.#deps.clock.skewMs?.() ?? 0);
    const body = {
      ...named,
      // Reported only if PostgreSQL itself is up, because it carries the bus.
      ...(bus === "down" && named.postgres === "ok" && { bus }),
      ...(clock !== "" && { clock }),
    };
    return { isReady, body: { status: this.#status(isReady, checks), ...body } };
  }

  #status(isReady: boolean, { redis, bus }: Check): string {
    if (this.stopping) return "stopping";
    if (!isReady) return "unavailable";
    // Without a bus the process still serves, but does not hear the other processes.
    return redis === "down" || bus === "down" ? "degraded" : "ok";
  }

  async check(): Promise<Check> {
    const { sql, objects, bus } = this.#deps;
    const [postgres, store] = await Promise.all([
      this.#ask("postgres", async () => await sql.outage.ping()),
      this.#ask("objects", async () => await objects.check()),
    ]);
    const checks = { postgres, objects: store };
    if (bus === undefined) return checks;
    return { ...checks, [bus.name === "redis" ? "redis" : "bus"]: bus.isUp ? "ok" : "down" };
  }

  async #ask(name: string, ask: (signal: AbortSignal) => Promise<unknown>): Promise<State> {
    const signal = AbortSignal.timeout(CHECK_MS);
    try {
      await unlessAborted(signal, ask(signal));
      return "ok";
    } catch (error) {
      warnRarely(this.#deps.log, { err: error, dependency: name }, `not ready: ${name}`);
      return "down";
    }
  }
}

/** Describes the clock skew for operators. Returns "" if the clocks agree. */
function skewText(ms: number): string {
  if (Math.abs(ms) < SKEW_MS_TOLD) return "";
  return `${Math.round(Math.abs(ms) / 1000)} s ${ms > 0 ? "ahead of" : "behind"} PostgreSQL`;
}
