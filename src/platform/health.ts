import { rejectOnAbort } from "./abort.ts";
import { type Bus } from "./bus.ts";
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
    deps.metrics.watchDependencies(async () => await this.check(), deps.sql);
  }

  /** What `/readyz` answers. */
  async report(): Promise<{ isReady: boolean; body: { status: string } & Check }> {
    const checks = await this.check();
    const isReady = !this.stopping && checks.postgres === "ok" && checks.objects === "ok";
    return { isReady, body: { status: this.#status(isReady, checks), ...checks } };
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
