import { Elysia } from "elysia";

import { type Bus } from "./bus.ts";
import { type Sql } from "./database.ts";
import { json } from "./docs.ts";
import { type Log } from "./log.ts";
import { type Metrics } from "./metrics.ts";
import { type ObjectStore } from "./objects.ts";

const CHECK_MS = 2000;

const METRICS_EXAMPLE = 'floodgate_batches_total{outcome="stored"} 1';

type Check = { postgres: "ok" | "down"; objects: "ok" | "down"; redis?: "ok" | "down" };

export type HealthDeps = { sql: Sql; objects: ObjectStore; bus: Bus; log: Log };

/** Whether this process can do its work: each dependency is asked with a bound of time. */
export class Health {
  readonly #deps: HealthDeps;
  /** Set when the process begins to end: a load balancer must send no more. */
  stopping = false;

  constructor(deps: HealthDeps) {
    this.#deps = deps;
  }

  async check(): Promise<Check> {
    const { sql, objects, bus } = this.#deps;
    const [postgres, store] = await Promise.all([
      this.#ask("postgres", async () => await sql`select 1`),
      this.#ask("objects", async (signal) => objects.ping(signal)),
    ]);
    const redis = bus.isUp ? "ok" : "down";
    return { postgres, objects: store, ...(bus.name === "redis" && { redis }) };
  }

  async #ask(name: string, ask: (signal: AbortSignal) => Promise<unknown>): Promise<"ok" | "down"> {
    const signal = AbortSignal.timeout(CHECK_MS);
    const { promise: late, reject } = Promise.withResolvers<never>();
    signal.addEventListener("abort", () => reject(signal.reason));
    try {
      await Promise.race([ask(signal), late]);
      return "ok";
    } catch (error) {
      this.#deps.log.warn({ err: error, dependency: name }, "not ready");
      return "down";
    }
  }
}

export function healthRoutes(health: Health, metrics: Metrics) {
  return new Elysia({ name: "health" })
    .get("/", () => ({ name: "floodgate", docs: "/docs" }), {
      detail: {
        tags: ["Operation"],
        summary: "The service is there",
        responses: { 200: json({ name: "floodgate", docs: "/docs" }) },
      },
    })
    .get("/livez", () => ({ status: "ok" }), {
      detail: {
        tags: ["Operation"],
        summary: "The process runs",
        responses: { 200: json({ status: "ok" }) },
      },
    })
    .get(
      "/readyz",
      async ({ set }) => {
        const checks = await health.check();
        const ready = !health.stopping && checks.postgres === "ok" && checks.objects === "ok";
        if (!ready) set.status = 503;
        return { status: statusOf(health, ready, checks), ...checks };
      },
      {
        detail: {
          tags: ["Operation"],
          summary: "The process can take requests",
          responses: {
            200: json({ status: "ok", postgres: "ok", objects: "ok" }),
            503: json({ status: "unavailable", postgres: "down", objects: "ok" }, "What fails"),
          },
        },
      },
    )
    .get(
      "/metrics",
      async () =>
        new Response(await metrics.registry.metrics(), {
          headers: { "content-type": metrics.registry.contentType },
        }),
      {
        detail: {
          tags: ["Operation"],
          summary: "Prometheus metrics",
          responses: {
            200: { description: "OK", content: { "text/plain": { example: METRICS_EXAMPLE } } },
          },
        },
      },
    );
}

function statusOf({ stopping }: Health, ready: boolean, { redis }: Check): string {
  if (stopping) return "stopping";
  if (!ready) return "unavailable";
  // Without Redis a process serves on, but does not hear the others.
  return redis === "down" ? "degraded" : "ok";
}
