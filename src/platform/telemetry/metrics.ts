import { Gauge } from "prom-client";

import { ProcessMetrics } from "./process-metrics.ts";

const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15];
const BYTES = [1024, 16_384, 65_536, 262_144, 1_048_576, 2_097_152, 4_194_304, 8_388_608];
const RECORDS = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500];

const METHODS = new Set(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]);
const WATCHED_REASONS = ["overload", "store", "database", "internal", "rate_limited"];

type RequestSeries = {
  count: () => void;
  observe: (seconds: number) => void;
  acknowledge: ((seconds: number) => void) | undefined;
};

/** Segments of the commit log that are neither committed nor failed yet. */
export type Waiting = {
  /** Segments by what they wait for: more records, a slot for their PUT, the store, the index. */
  segments: { open: number; slot: number; put: number; index: number };
  /** Age of the oldest record. */
  oldestMs: number;
};

/** Metrics of a serving process. */
export class Metrics extends ProcessMetrics {
  readonly #requests = this.counter(
    "http_requests_total",
    "HTTP responses by route, method and status.",
    ["route", "method", "status"],
  );
  readonly #requestSeconds = this.histogram(
    "http_request_duration_seconds",
    "Time from a request's headers to its response.",
    SECONDS,
    ["route"],
  );
  readonly #acknowledgementSeconds = this.histogram(
    "acknowledgement_duration_seconds",
    "Time from the headers of a batch or an upload of images to its 200, which says that the data is durable.",
    SECONDS,
    ["kind"],
  );
  readonly refusals = this.counter(
    "refusals_total",
    "Requests that ended with an error, by reason: overload, store (unavailable), database (unavailable), lost (missing or damaged data), framing, internal, or the error's code.",
    ["reason"],
  );
  readonly limited = this.counter(
    "limited_total",
    "Requests refused with 429, by the limit that they exceeded (docs/limits.md).",
    ["limit"],
  );
  readonly batches = this.counter(
    "batches_total",
    "Acknowledged batches: stored, duplicate or discarded.",
    ["outcome"],
  );
  readonly batchBytes = this.counter(
    "batch_bytes_total",
    "Bytes of the accepted batches, as sent.",
  );
  readonly framingErrors = this.counter("framing_errors_total", "Batches with malformed framing.", [
    "reason",
  ]);
  readonly images = this.counter(
    "images_total",
    "Acknowledged image parts: stored, conflict (stored, in addition to other bytes of that name), known or discarded.",
    ["outcome"],
  );
  readonly sessions = this.counter(
    "session_starts_total",
    "Session starts: new, resumed, sampled_out or unrecorded.",
    ["outcome"],
  );
  readonly droppedPerformance = this.counter(
    "start_performance_dropped_total",
    "Session starts whose `performance` exceeded its limits and was left out.",
  );
  readonly segments = this.counter("segments_total", "Segments: committed or failed.", ["outcome"]);
  readonly segmentBytes = this.histogram(
    "segment_bytes",
    "Size of the committed segments in bytes.",
    BYTES,
  );
  readonly segmentRecords = this.histogram(
    "segment_records",
    "Number of records of the committed segments.",
    RECORDS,
  );
  readonly putSeconds = this.histogram(
    "object_put_duration_seconds",
    "Duration of successful attempts to store a segment.",
    SECONDS,
  );
  readonly indexSeconds = this.histogram(
    "segment_index_duration_seconds",
    "Duration of successful attempts to index a segment.",
    SECONDS,
  );
  readonly retries = this.counter(
    "segment_retries_total",
    "Failed attempts to store or index a segment, by step: put or index.",
    ["step"],
  );
  readonly missingRecords = this.counter(
    "missing_records_total",
    "Batches, chunks of images and builds that could not be read because their object is missing or damaged.",
    ["reason"],
  );
  readonly presencePings = this.counter("presence_pings_total", "Pings and byes of devices.");
  readonly presenceDeliveries = this.counter(
    "presence_deliveries_total",
    "Events handed to subscribers.",
  );
  readonly presenceConnections = new Gauge({
    name: "floodgate_presence_connections",
    help: "Open event streams and WebSockets.",
    labelNames: ["transport"],
    registers: [this.registry],
  });
  readonly presenceDropped = this.counter(
    "presence_dropped_total",
    "Subscribers that were disconnected: slow, stalled, frames (too many bad ones) or expired (their token).",
    ["reason"],
  );
  readonly updateDownloads = this.counter(
    "update_downloads_total",
    "Downloads of builds that were started: whole, range, or redirected to the store.",
    ["kind"],
  );
  readonly updateDownloadBytes = this.counter(
    "update_download_bytes_total",
    "Bytes of the downloads of builds that were started, without redirected ones.",
  );
  readonly updatePublishes = this.counter("update_publishes_total", "Builds that were published.");
  readonly updatePublishBytes = this.counter(
    "update_publish_bytes_total",
    "Bytes of the builds that were published.",
  );
  /** Series by route, method and status. */
  readonly #series = new Map<string, Map<string, Map<number, RequestSeries>>>();

  constructor() {
    super("serve");
    // Create the series with 0: Prometheus sees an increase only in series that existed before.
    for (const reason of WATCHED_REASONS) this.refusals.inc({ reason }, 0);
    for (const outcome of ["committed", "failed"]) this.segments.inc({ outcome }, 0);
    for (const step of ["put", "index"]) this.retries.inc({ step }, 0);
    for (const reason of ["missing", "damaged"]) this.missingRecords.inc({ reason }, 0);
  }

  watchIngest(inflight: { bytes: number; limit: number }, log: { waiting(): Waiting }): void {
    this.watch(
      "inflight_bytes",
      "Bytes held for clients that wait: bodies being read, and records that are not yet durable.",
      () => inflight.bytes,
    );
    this.watch(
      "inflight_limit_bytes",
      "Limit of inflight bytes, above which requests are refused; falls below INFLIGHT_BYTES_MAX while the store or the database is slow or away.",
      () => inflight.limit,
    );
    this.watch(
      "segments_waiting",
      "Segments by what they wait for: open (more records), slot (a free PUT), put (the store) or index (the database).",
      () => log.waiting().segments,
      { label: "for" },
    );
    this.watch(
      "oldest_record_age_seconds",
      "Age of the oldest record that is neither acknowledged nor refused yet; 0 if there is none.",
      () => log.waiting().oldestMs / 1000,
      { aggregator: "max" },
    );
  }

  /** Counts an answer. `acknowledges` is the kind of data that the route's 200 acknowledges, if any. */
  request(
    { route, acknowledges }: { route: string; acknowledges: string | undefined },
    method: string,
    status: number,
    ms: number,
  ): void {
    // A client may make up methods; labels must stay few.
    if (!METHODS.has(method)) method = "other";
    const series =
      this.#series.get(route)?.get(method)?.get(status) ??
      this.#seriesOf(route, method, status, acknowledges);
    const seconds = ms / 1000;
    series.count();
    series.observe(seconds);
    series.acknowledge?.(seconds);
  }

  #seriesOf(
    route: string,
    method: string,
    status: number,
    kind: string | undefined,
  ): RequestSeries {
    const series = {
      count: this.#requests.series({ route, method, status }),
      observe: this.#requestSeconds.series({ route }),
      acknowledge:
        kind === undefined || status !== 200
          ? undefined
          : this.#acknowledgementSeconds.series({ kind }),
    };
    const methods = this.#series.get(route) ?? new Map<string, Map<number, RequestSeries>>();
    const statuses = methods.get(method) ?? new Map<number, RequestSeries>();
    this.#series.set(route, methods.set(method, statuses.set(status, series)));
    return series;
  }
}
