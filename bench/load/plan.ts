import { type Static, Type } from "typebox";

/** Messages between the bench and its load process, checked at both ends, as they have no types. */

/** Types of batches of the web tracker, as it names them in a header. */
export const WebType = Type.Union([
  Type.Literal("player"),
  Type.Literal("devtools"),
  Type.Literal("visual"),
]);
export type WebType = Static<typeof WebType>;

const Batches = Type.Object({
  kind: Type.Literal("batch"),
  bytes: Type.Integer({ minimum: 256 }),
  /** Absent for batches of a mobile SDK. */
  web: Type.Optional(WebType),
  gzip: Type.Optional(Type.Boolean()),
  /** Project in which every connection starts a session of its own. */
  projectKey: Type.Optional(Type.String()),
  /** Session that all connections share instead; without either the token is made up. */
  token: Type.Optional(Type.String()),
});

const Images = Type.Object({
  kind: Type.Literal("image"),
  bytes: Type.Integer({ minimum: 256 }),
  projectID: Type.Number(),
  projectKey: Type.Optional(Type.String()),
});

/** One object per request, sent directly to the store, for the cost of a PUT without a server. */
const Puts = Type.Object({
  kind: Type.Literal("put"),
  bytes: Type.Integer({ minimum: 256 }),
  path: Type.String(),
});

/** The same GET on every connection, without a token. */
const Gets = Type.Object({ kind: Type.Literal("get"), path: Type.String() });

export const Work = Type.Union([Batches, Images, Puts, Gets]);
export type Work = Static<typeof Work>;

export const Stage = Type.Object({
  name: Type.String(),
  /** Arrivals per second; if absent every connection is always busy (saturation). */
  rate: Type.Optional(Type.Number({ exclusiveMinimum: 0 })),
  /** Number of connections to use; all by default. */
  connections: Type.Optional(Type.Integer({ minimum: 1 })),
  warmupSeconds: Type.Number({ minimum: 0 }),
  seconds: Type.Number({ exclusiveMinimum: 0 }),
  /** Ends the stage early, once so many requests are answered. */
  requestsMax: Type.Optional(Type.Integer({ minimum: 1 })),
});
export type Stage = Static<typeof Stage>;

/** Processes whose CPU and memory are read at both ends of a measuring window. */
export const Watched = Type.Object({
  server: Type.Integer(),
  postgres: Type.Optional(Type.Integer()),
  /** Proxy in front of the server. */
  proxy: Type.Optional(Type.Integer()),
});
export type Watched = Static<typeof Watched>;

export const StagesPlan = Type.Object({
  kind: Type.Literal("stages"),
  url: Type.String(),
  /** Certificate of the server, in PEM, if no authority has signed it. */
  ca: Type.Optional(Type.String()),
  connections: Type.Integer({ minimum: 1 }),
  work: Work,
  stages: Type.Array(Stage),
  /** Absent for a server on another machine: its CPU and memory are then given as 0. */
  watched: Type.Optional(Watched),
  /** URL of the simulator, whose counters are read with the CPU. */
  storeUrl: Type.Optional(Type.String()),
});
export type StagesPlan = Static<typeof StagesPlan>;

const ImageForm = Type.Object({ kind: Type.Literal("image"), projectID: Type.Number() });

/** A build per upload, with ascending versions from `version` on. */
const BuildForm = Type.Object({
  kind: Type.Literal("build"),
  signature: Type.String(),
  version: Type.Integer({ minimum: 0 }),
});

/** Uploads of whole files: one huge file at full speed, or hundreds of slow ones. */
export const UploadsPlan = Type.Object({
  kind: Type.Literal("uploads"),
  url: Type.String(),
  form: Type.Union([ImageForm, BuildForm]),
  projectKey: Type.Optional(Type.String()),
  connections: Type.Integer({ minimum: 1 }),
  bytes: Type.Integer({ minimum: 1 }),
  /** Rate of each connection; unlimited if absent. */
  bytesPerSecond: Type.Optional(Type.Number({ exclusiveMinimum: 0 })),
  watched: Watched,
  storeUrl: Type.Optional(Type.String()),
});
export type UploadsPlan = Static<typeof UploadsPlan>;

/** Download of one file over all connections at once. */
export const DownloadsPlan = Type.Object({
  kind: Type.Literal("downloads"),
  url: Type.String(),
  path: Type.String(),
  connections: Type.Integer({ minimum: 1 }),
  watched: Watched,
});
export type DownloadsPlan = Static<typeof DownloadsPlan>;

/** Step of a presence plan. Users are numbers; the load process makes their names. */
export const PresenceStep = Type.Union([
  /** Opens `each` subscribers to each of `users` users. */
  Type.Object({ kind: Type.Literal("subscribe"), users: Type.Integer(), each: Type.Integer() }),
  /** Pings every user until each of its subscribers has received a ping. */
  Type.Object({ kind: Type.Literal("greet") }),
  Type.Object({ kind: Type.Literal("unsubscribe") }),
  /** Opens subscribers to the first user that never read. */
  Type.Object({ kind: Type.Literal("stall"), subscribers: Type.Integer() }),
  Type.Object({ kind: Type.Literal("unstall") }),
  /** Waits until the server's memory no longer changes. */
  Type.Object({
    kind: Type.Literal("settle"),
    name: Type.String(),
    seconds: Type.Number(),
    secondsMax: Type.Number(),
  }),
  /** Measures a window. Without `rate` it sends as many pings as possible, or none with `quiet`. */
  Type.Object({
    kind: Type.Literal("window"),
    name: Type.String(),
    quiet: Type.Optional(Type.Boolean()),
    rate: Type.Optional(Type.Number({ exclusiveMinimum: 0 })),
    warmupSeconds: Type.Number({ minimum: 0 }),
    seconds: Type.Number({ exclusiveMinimum: 0 }),
  }),
]);
export type PresenceStep = Static<typeof PresenceStep>;

export const Transport = Type.Union([Type.Literal("websocket"), Type.Literal("sse")]);
export type Transport = Static<typeof Transport>;

export const PresencePlan = Type.Object({
  kind: Type.Literal("presence"),
  url: Type.String(),
  transport: Transport,
  /** True for the bare server, which gets ready-made events instead of pings. */
  bare: Type.Boolean(),
  /** Length of the names of users and of clients, which determines the length of events. */
  nameLength: Type.Integer({ minimum: 16, maximum: 128 }),
  pingConnections: Type.Integer({ minimum: 1 }),
  steps: Type.Array(PresenceStep),
  watched: Watched,
});
export type PresencePlan = Static<typeof PresencePlan>;

export const Plan = Type.Union([StagesPlan, UploadsPlan, DownloadsPlan, PresencePlan]);
export type Plan = Static<typeof Plan>;

export const Latency = Type.Object({
  count: Type.Number(),
  meanMs: Type.Number(),
  p50Ms: Type.Number(),
  p90Ms: Type.Number(),
  p99Ms: Type.Number(),
  p999Ms: Type.Number(),
  maxMs: Type.Number(),
});
export type Latency = Static<typeof Latency>;

const Sample = Type.Object({ seconds: Type.Number(), bytes: Type.Number() });
export type Sample = Static<typeof Sample>;

export const Usage = Type.Object({
  serverCpuSeconds: Type.Number(),
  postgresCpuSeconds: Type.Optional(Type.Number()),
  proxyCpuSeconds: Type.Optional(Type.Number()),
  generatorCpuSeconds: Type.Number(),
  rssStartBytes: Type.Number(),
  /** The kernel's high-water mark if it can be reset, else the highest sample. */
  rssPeakBytes: Type.Number(),
  /** Resident memory in each second of the window. */
  rssSamples: Type.Optional(Type.Array(Sample)),
  puts: Type.Optional(Type.Number()),
  putBytes: Type.Optional(Type.Number()),
  /** Latencies that the simulator itself measured. */
  putLatency: Type.Optional(Latency),
});
export type Usage = Static<typeof Usage>;

export const StageResult = Type.Object({
  name: Type.String(),
  rate: Type.Optional(Type.Number()),
  connections: Type.Number(),
  bodyBytes: Type.Number(),
  /** Length of the measuring window, to which `acknowledged`, `refused` and `usage` refer. */
  seconds: Type.Number(),
  acknowledged: Type.Number(),
  /** Requests that were answered 503 or 429. */
  refused: Type.Number(),
  /** Measured from the intended start of each request that was answered 200. */
  latency: Latency,
  /** Measured from the first byte sent to the refusal. */
  refusal: Latency,
  /** Delay of the generator's own timer, which may be part of the latencies. */
  lag: Latency,
  usage: Usage,
  /** Acknowledgements in each second of the window, for the plot. */
  perSecond: Type.Array(Type.Number()),
  // The fields below refer to the whole stage, including warm-up and drain.
  sent: Type.Number(),
  statuses: Type.Record(Type.String(), Type.Number()),
  refusedWithoutRetryAfter: Type.Number(),
  /** Connections that ended before the answer to their request. */
  broken: Type.Number(),
  reconnects: Type.Number(),
  /** Arrivals for which no connection became free. */
  unsent: Type.Number(),
  unanswered: Type.Number(),
});
export type StageResult = Static<typeof StageResult>;

export const TransferResult = Type.Object({
  connections: Type.Number(),
  bytes: Type.Number(),
  seconds: Type.Number(),
  statuses: Type.Record(Type.String(), Type.Number()),
  broken: Type.Number(),
  usage: Usage,
});
export type TransferResult = Static<typeof TransferResult>;

/** The server's memory after a settle step or before a stall step. */
export const PresenceMark = Type.Object({
  name: Type.String(),
  seconds: Type.Number(),
  rssBytes: Type.Number(),
});
export type PresenceMark = Static<typeof PresenceMark>;

export const PresenceWindow = Type.Object({
  name: Type.String(),
  rate: Type.Optional(Type.Number()),
  subscribers: Type.Number(),
  stalled: Type.Number(),
  seconds: Type.Number(),
  /** Pings answered 200 within the window. */
  pings: Type.Number(),
  /** Events received within the window, and their bytes without framing. */
  deliveries: Type.Number(),
  deliveredBytes: Type.Number(),
  /**
   * Latency of the window's pings at each subscriber: from the intended send to the arrival of an
   * event that is at least as new.
   */
  latency: Latency,
  /** Number of these pings that were skipped because a newer one was delivered. */
  superseded: Type.Number(),
  lag: Latency,
  usage: Usage,
  /** Resident memory at the end of the window. */
  rssBytes: Type.Number(),
});
export type PresenceWindow = Static<typeof PresenceWindow>;

export const PresenceResult = Type.Object({
  marks: Type.Array(PresenceMark),
  windows: Type.Array(PresenceWindow),
  /** Problems that make the figures worthless. */
  problems: Type.Array(Type.String()),
});
export type PresenceResult = Static<typeof PresenceResult>;

export const LoadMessage = Type.Union([
  Type.Object({ kind: Type.Literal("ready") }),
  Type.Object({ kind: Type.Literal("progress"), done: Type.Number(), detail: Type.String() }),
  Type.Object({ kind: Type.Literal("stage"), result: StageResult }),
  Type.Object({ kind: Type.Literal("transfer"), result: TransferResult }),
  Type.Object({ kind: Type.Literal("presence"), result: PresenceResult }),
  Type.Object({ kind: Type.Literal("done") }),
  Type.Object({ kind: Type.Literal("failed"), message: Type.String() }),
]);
export type LoadMessage = Static<typeof LoadMessage>;
