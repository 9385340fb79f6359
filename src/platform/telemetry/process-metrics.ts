import { type Aggregator, Gauge, collectDefaultMetrics } from "prom-client";

import { version } from "../../../package.json" with { type: "json" };
import { type Sql } from "../database/database.ts";
import { inTime } from "../time-limit.ts";
import { HotCounter, HotHistogram, HotRegistry } from "./hot-metrics.ts";

// Longest wait for a value: a dependency that is down must not delay the scrape. Readiness checks end
// sooner.
const READ_MS_MAX = 3000;
// Time between two probes of the event loop's lag. The default of 10 ms took a third of the CPU of an
// idle server.
const LAG_PROBE_MS = 250;
// Default metrics to keep: the others are always empty in Bun, or say nothing about a server.
const KEPT =
  /^(?:process_(?:cpu_|resident_|open_fds|max_fds)|nodejs_(?:eventloop_lag_(?:seconds|p50|p99|max)|heap_size|external))/;

type Read = number | Record<string, number>;

type WatchOptions = {
  /** Label whose values are the keys of the record that is read. */
  label?: string;
  /** Aggregation of the values of several processes; other than the sum if they measure the same. */
  aggregator?: Aggregator;
};

/** Metrics of one process. Labels have few values and never ids; names carry their unit. */
export class ProcessMetrics {
  readonly registry = new HotRegistry();

  readonly #command: string;

  constructor(command: "serve" | "work") {
    this.#command = command;
  }

  /** Adds the metrics of the process itself and of its dependencies. Commands that end have none. */
  watchProcess(check: () => Promise<Record<string, "ok" | "down">>, sql: Sql): void {
    this.#watchRuntime();
    const read = async () =>
      Object.fromEntries(
        Object.entries(await check()).map(([name, state]) => [name, state === "ok" ? 1 : 0]),
      );
    this.watch(
      "dependency_up",
      "1 if the dependency answers every process, 0 if it does not answer one of them.",
      read,
      { label: "dependency", aggregator: "min" },
    );
    this.watch(
      "database_busy_connections",
      "Connections of all Floodgate processes to the database that run a statement or are in a transaction.",
      async () => await countBusyConnections(sql),
      { aggregator: "max" },
    );
  }

  #watchRuntime(): void {
    const command = this.#command;
    collectDefaultMetrics({
      register: this.registry,
      labels: { command },
      eventLoopMonitoringPrecision: LAG_PROBE_MS,
    });
    for (const { name } of this.registry.getMetricsAsArray())
      if (!name.startsWith("floodgate_") && !KEPT.test(name))
        this.registry.removeSingleMetric(name);
    new Gauge({
      name: "process_start_time_seconds",
      help: "Start of the process (of several: the latest) in seconds since the epoch.",
      labelNames: ["command"],
      aggregator: "max",
      registers: [this.registry],
    }).set({ command }, Date.now() / 1000 - process.uptime());
    new Gauge({
      name: "floodgate_processes",
      help: "Processes that answered this scrape.",
      labelNames: ["command", "version"],
      registers: [this.registry],
    }).set({ command, version }, 1);
  }

  /** Adds a gauge that is read at each scrape; it has no value if it cannot be read in time. */
  watch(
    name: string,
    help: string,
    read: () => Read | Promise<Read>,
    { label, aggregator = "sum" }: WatchOptions = {},
  ): void {
    const gauge: Gauge = new Gauge({
      name: `floodgate_${name}`,
      help,
      labelNames: label === undefined ? [] : [label],
      aggregator,
      registers: [this.registry],
      collect: async (): Promise<void> => {
        try {
          const value = await inTime<Read>(READ_MS_MAX, Promise.try(read), tooLate);
          if (typeof value === "number") gauge.set(value);
          else for (const [key, one] of Object.entries(value)) gauge.labels(key).set(one);
        } catch {
          // Remove the old value: it would look like a new one.
          if (label === undefined) gauge.remove();
          else gauge.reset();
        }
      },
    });
  }

  protected counter<const Label extends string>(
    name: string,
    help: string,
    labelNames: Label[] = [],
  ): HotCounter<Label> {
    return new HotCounter({
      name: `floodgate_${name}`,
      help,
      labelNames,
      registers: [this.registry],
    });
  }

  protected histogram<const Label extends string>(
    name: string,
    help: string,
    buckets: number[],
    labelNames: Label[] = [],
  ): HotHistogram<Label> {
    return new HotHistogram({
      name: `floodgate_${name}`,
      help,
      buckets,
      labelNames,
      registers: [this.registry],
    });
  }
}

function tooLate(): never {
  throw new Error("not read in time");
}

async function countBusyConnections(sql: Sql): Promise<number> {
  const [row] = await sql<[{ busy: number }]>`
    select count(*)::integer as busy from pg_stat_activity
    where datname = current_database() and application_name = current_setting('application_name') and state <> 'idle' and pid <> pg_backend_pid()`;
  return row.busy;
}
