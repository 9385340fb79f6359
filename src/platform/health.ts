import { rejectOnAbort } from "./abort.ts";
import { type Bus } from "./bus.ts";
import { type Sql } from "./database.ts";
import { type Log } from "./log.ts";
import { warnRarely } from "./rare-warnings.ts";
import { type ProcessMetrics } from "./process-metrics.ts";
import { type StoreHealth } from "./store-health.ts";

const CHECK_MS = 2000;

type State = "ok" | "down";
/** `bus` is that of a process without Redis, to which PostgreSQL carries what others say. */
export type Check = { postgres: State; objects: State; redis?: State; bus?: State };

export type HealthDeps = {
  sql: Sql;
  objects: StoreHealth;
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
    const { bus, ...named } = checks;
    // Named only where it alone is away: it is PostgreSQL.
    const body = { ...named, ...(bus === "down" && named.postgres === "ok" && { bus }) };
    return { isReady, body: { status: this.#status(isReady, checks), ...body } };
  }

  #status(isReady: boolean, { redis, bus }: Check): string {
    if (this.stopping) return "stopping";
    if (!isReady) return "unavailable";
    // Without a bus a process serves on, but does not hear the others.
    return redis === "down" || bus === "down" ? "degraded" : "ok";
  }

  async check(): Promise<Check> {
    const { sql, objects, bus } = this.#deps;
    const [postgres, store] = await Promise.all([
      this.#ask("postgres", async () => await sql`select 1`),
      this.#ask("objects", async () => await objects.check()),
    ]);
    const checks = { postgres, objects: store };
    if (bus === undefined) return checks;
    return { ...checks, [bus.name === "redis" ? "redis" : "bus"]: bus.isUp ? "ok" : "down" };
  }

  async #ask(name: string, ask: (signal: AbortSignal) => Promise<unknown>): Promise<State> {
    const signal = AbortSignal.timeout(CHECK_MS);
    try {
      await Promise.race([ask(signal), rejectOnAbort(signal)]);
      return "ok";
    } catch (error) {
      warnRarely(this.#deps.log, { err: error, dependency: name }, `not ready: ${name}`);
      return "down";
    }
  }
}
