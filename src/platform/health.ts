import { rejectOnAbort } from "./abort.ts";
import { type Bus } from "./bus.ts";
import { type Clock } from "./clock.ts";
import { SKEW_MS_TOLD } from "./database-clock.ts";
import { type Sql } from "./database.ts";
import { type Log } from "./log.ts";
import { type ObjectStore } from "./objects.ts";
import { type ProcessMetrics } from "./process-metrics.ts";

const CHECK_MS = 2000;

export type Check = { postgres: "ok" | "down"; objects: "ok" | "down"; redis?: "ok" | "down" };

export type HealthDeps = {
  sql: Sql;
  objects: ObjectStore;
  /** of a process that hears others */
  bus?: Bus;
  clock: Clock;
  metrics: ProcessMetrics;
  log: Log;
};

/** Whether this process can do its work: each dependency is asked with a bound of time. */
export class Health {
  readonly #deps: HealthDeps;
  /** Set when the process begins to end: a load balancer must send no more. */
  stopping = false;

  constructor(deps: HealthDeps) {
    this.#deps = deps;
    const { metrics, clock } = deps;
    metrics.watchDependencies(async () => await this.check(), deps.sql);
    metrics.watch(
      "clock_skew_seconds",
      "How far this machine's clock is ahead of the database's, whose time is used; negative when it is behind.",
      () => (clock.skewMs?.() ?? 0) / 1000,
      { aggregator: "max" },
    );
  }

  /** What `/readyz` answers. */
  async report(): Promise<{ isReady: boolean; body: { status: string; clock?: string } & Check }> {
    const checks = await this.check();
    const isReady = !this.stopping && checks.postgres === "ok" && checks.objects === "ok";
    const clock = skewText(this.#deps.clock.skewMs?.() ?? 0);
    return {
      isReady,
      body: { status: this.#status(isReady, checks), ...checks, ...(clock !== "" && { clock }) },
    };
  }

  #status(isReady: boolean, { redis }: Check): string {
    if (this.stopping) return "stopping";
    if (!isReady) return "unavailable";
    // Without Redis a process serves on, but does not hear the others.
    return redis === "down" ? "degraded" : "ok";
  }

  async check(): Promise<Check> {
    const { sql, objects, bus } = this.#deps;
    const [postgres, store] = await Promise.all([
      this.#ask("postgres", async () => await sql.outage.ping()),
      this.#ask("objects", async (signal) => objects.ping(signal)),
    ]);
    const redis = bus?.isUp === true ? "ok" : "down";
    return { postgres, objects: store, ...(bus?.name === "redis" && { redis }) };
  }

  async #ask(name: string, ask: (signal: AbortSignal) => Promise<unknown>): Promise<"ok" | "down"> {
    const signal = AbortSignal.timeout(CHECK_MS);
    try {
      await Promise.race([ask(signal), rejectOnAbort(signal)]);
      return "ok";
    } catch (error) {
      this.#deps.log.warn({ err: error, dependency: name }, "not ready");
      return "down";
    }
  }
}

/** Empty for what is no trouble. */
function skewText(ms: number): string {
  if (Math.abs(ms) < SKEW_MS_TOLD) return "";
  return `${Math.round(Math.abs(ms) / 1000)} s ${ms > 0 ? "ahead of" : "behind"} PostgreSQL`;
}
