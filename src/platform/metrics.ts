import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from "prom-client";

const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15];
const BYTES = [1024, 16_384, 65_536, 262_144, 1_048_576, 2_097_152, 4_194_304, 8_388_608];

const METHODS = new Set(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]);

/** What an operator may ask, as Prometheus counters. One instance a process; labels have few values, never ids. */
export class Metrics {
  readonly registry = new Registry();
  readonly #requests = this.#counter("http_requests_total", "Answers by route and status.", [
    "route",
    "method",
    "status",
  ]);
  readonly #requestSeconds = this.#histogram(
    "http_request_duration_seconds",
    "From the request's headers to its answer.",
    SECONDS,
    ["route"],
  );
  readonly batches = this.#counter(
    "batches_total",
    "Acknowledged batches: stored, duplicate or discarded.",
    ["outcome"],
  );
  readonly batchBytes = this.#counter(
    "batch_bytes_total",
    "Bytes of acknowledged batches as they were sent.",
  );
  readonly framingErrors = this.#counter(
    "framing_errors_total",
    "Batches with malformed framing.",
    ["reason"],
  );
  readonly images = this.#counter(
    "images_total",
    "Acknowledged image parts: stored, known, conflict or discarded.",
    ["outcome"],
  );
  readonly sessions = this.#counter(
    "session_starts_total",
    "Session starts: new, resumed, sampled_out or unrecorded.",
    ["outcome"],
  );
  readonly segments = this.#counter("segments_total", "Segments: committed or failed.", [
    "outcome",
  ]);
  readonly segmentBytes = this.#histogram("segment_bytes", "Size of the stored segments.", BYTES);
  readonly putSeconds = this.#histogram(
    "object_put_duration_seconds",
    "One attempt to store a segment.",
    SECONDS,
  );
  readonly indexSeconds = this.#histogram(
    "segment_index_duration_seconds",
    "One attempt to index a segment.",
    SECONDS,
  );
  readonly retries = this.#counter("segment_retries_total", "Failed attempts that were repeated.", [
    "step",
  ]);
  readonly presencePings = this.#counter("presence_pings_total", "Pings and byes of devices.");
  readonly presenceDeliveries = this.#counter(
    "presence_deliveries_total",
    "Events handed to subscribers.",
  );
  readonly presenceConnections = new Gauge({
    name: "floodgate_presence_connections",
    help: "Open event streams and WebSockets.",
    labelNames: ["transport"],
    registers: [this.registry],
  });
  readonly presenceDropped = this.#counter(
    "presence_dropped_total",
    "Subscribers that were closed: slow, stalled, frames (too many bad ones) or expired (their token).",
    ["reason"],
  );
  readonly #children = new Map<
    string,
    { count: { inc: () => void }; seconds: { observe: (value: number) => void } }
  >();

  constructor() {
    collectDefaultMetrics({ register: this.registry });
  }

  watchInflight(read: () => number): void {
    const gauge: Gauge = new Gauge({
      name: "floodgate_inflight_bytes",
      help: "Bytes held until they are durable.",
      registers: [this.registry],
      collect: (): void => gauge.set(read()),
    });
  }

  request(route: string, method: string, status: number, ms: number): void {
    // A client may make up methods; labels must stay few.
    if (!METHODS.has(method)) method = "other";
    const key = `${route} ${method} ${status}`;
    let child = this.#children.get(key);
    if (child === undefined) {
      child = {
        count: this.#requests.labels(route, method, String(status)),
        seconds: this.#requestSeconds.labels(route),
      };
      this.#children.set(key, child);
    }
    child.count.inc();
    child.seconds.observe(ms / 1000);
  }

  #counter<const Label extends string>(
    name: string,
    help: string,
    labelNames: Label[] = [],
  ): Counter<Label> {
    return new Counter({ name: `floodgate_${name}`, help, labelNames, registers: [this.registry] });
  }

  #histogram<const Label extends string>(
    name: string,
    help: string,
    buckets: number[],
    labelNames: Label[] = [],
  ): Histogram<Label> {
    return new Histogram({
      name: `floodgate_${name}`,
      help,
      buckets,
      labelNames,
      registers: [this.registry],
    });
  }
}
