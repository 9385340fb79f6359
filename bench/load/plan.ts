import { type Static, Type } from "typebox";

/** What travels between the bench and its load process. Checked on both ends, since messages between processes have no types. */

const Batches = Type.Object({
  kind: Type.Literal("batch"),
  bytes: Type.Integer({ minimum: 256 }),
  /** Absent: the target has no sessions, and every connection sends the same made-up token. */
  projectKey: Type.Optional(Type.String()),
});

const Images = Type.Object({
  kind: Type.Literal("image"),
  bytes: Type.Integer({ minimum: 256 }),
  projectID: Type.Number(),
  projectKey: Type.Optional(Type.String()),
});

/** One object per request, straight to the store: what a PUT costs without a server in between. */
const Puts = Type.Object({
  kind: Type.Literal("put"),
  bytes: Type.Integer({ minimum: 256 }),
  path: Type.String(),
});

/** The same question from everyone, without a token. */
const Gets = Type.Object({ kind: Type.Literal("get"), path: Type.String() });

export const Work = Type.Union([Batches, Images, Puts, Gets]);
export type Work = Static<typeof Work>;

export const Stage = Type.Object({
  name: Type.String(),
  /** Arrivals per second. Absent: saturation, every connection always busy. */
  rate: Type.Optional(Type.Number({ exclusiveMinimum: 0 })),
  /** Only the first so many connections take part. */
  connections: Type.Optional(Type.Integer({ minimum: 1 })),
  warmupSeconds: Type.Number({ minimum: 0 }),
  seconds: Type.Number({ exclusiveMinimum: 0 }),
});
export type Stage = Static<typeof Stage>;

/** Processes whose CPU and memory are read at both ends of a measuring window. */
export const Watched = Type.Object({
  server: Type.Integer(),
  postgres: Type.Optional(Type.Integer()),
});
export type Watched = Static<typeof Watched>;

export const StagesPlan = Type.Object({
  kind: Type.Literal("stages"),
  url: Type.String(),
  connections: Type.Integer({ minimum: 1 }),
  work: Work,
  stages: Type.Array(Stage),
  watched: Watched,
  /** The simulator's counters, read with the CPU. */
  storeUrl: Type.Optional(Type.String()),
});
export type StagesPlan = Static<typeof StagesPlan>;

const ImageForm = Type.Object({ kind: Type.Literal("image"), projectID: Type.Number() });

/** A build per upload, each of a version of its own from `version` on. */
const BuildForm = Type.Object({
  kind: Type.Literal("build"),
  signature: Type.String(),
  version: Type.Integer({ minimum: 0 }),
});

/** Whole files at a given pace: one huge one as fast as it goes, or hundreds that trickle. */
export const UploadsPlan = Type.Object({
  kind: Type.Literal("uploads"),
  url: Type.String(),
  form: Type.Union([ImageForm, BuildForm]),
  projectKey: Type.Optional(Type.String()),
  connections: Type.Integer({ minimum: 1 }),
  bytes: Type.Integer({ minimum: 1 }),
  /** Per connection. Absent: as fast as the server takes it. */
  bytesPerSecond: Type.Optional(Type.Number({ exclusiveMinimum: 0 })),
  watched: Watched,
  storeUrl: Type.Optional(Type.String()),
});
export type UploadsPlan = Static<typeof UploadsPlan>;

/** One file, over all connections at once. */
export const DownloadsPlan = Type.Object({
  kind: Type.Literal("downloads"),
  url: Type.String(),
  path: Type.String(),
  connections: Type.Integer({ minimum: 1 }),
  watched: Watched,
});
export type DownloadsPlan = Static<typeof DownloadsPlan>;

/** Subscribers of presence, and pings for them. A user is a number; the load process makes the names. */
export const PresenceStep = Type.Union([
  /** Opens `each` subscribers to each of `users` users. */
  Type.Object({ kind: Type.Literal("subscribe"), users: Type.Integer(), each: Type.Integer() }),
  /** Pings every user until each of its subscribers has heard of it. */
  Type.Object({ kind: Type.Literal("greet") }),
  Type.Object({ kind: Type.Literal("unsubscribe") }),
  /** Opens subscribers to the first user that never read. */
  Type.Object({ kind: Type.Literal("stall"), subscribers: Type.Integer() }),
  Type.Object({ kind: Type.Literal("unstall") }),
  /** Waits until the server's memory stands still. */
  Type.Object({
    kind: Type.Literal("settle"),
    name: Type.String(),
    seconds: Type.Number(),
    secondsMax: Type.Number(),
  }),
  /** A measuring window. Without `rate`: as many pings as get through, or none with `quiet`. */
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
  /** The bare server takes events ready made instead of pings. */
  bare: Type.Boolean(),
  /** Characters in a user's and in a client's name: they decide how long an event is. */
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

export const Usage = Type.Object({
  serverCpuSeconds: Type.Number(),
  postgresCpuSeconds: Type.Optional(Type.Number()),
  generatorCpuSeconds: Type.Number(),
  rssStartBytes: Type.Number(),
  /** The kernel's own high-water mark where it can be reset, else the highest sample. */
  rssPeakBytes: Type.Number(),
  puts: Type.Optional(Type.Number()),
  putBytes: Type.Optional(Type.Number()),
  /** As the simulator itself measured them. */
  putLatency: Type.Optional(Latency),
});
export type Usage = Static<typeof Usage>;

export const StageResult = Type.Object({
  name: Type.String(),
  rate: Type.Optional(Type.Number()),
  connections: Type.Number(),
  bodyBytes: Type.Number(),
  /** The measuring window; `acknowledged`, `refused` and `usage` belong to it alone. */
  seconds: Type.Number(),
  acknowledged: Type.Number(),
  refused: Type.Number(),
  /** From the intended start of each request that was answered 200. */
  latency: Latency,
  /** From the first byte sent to the 503. */
  refusal: Latency,
  /** How late the generator's own clock ticked: what of the latencies may be its own. */
  lag: Latency,
  usage: Usage,
  /** Acknowledgements in each second of the window, for the plot. */
  perSecond: Type.Array(Type.Number()),
  // The rest counts the whole stage, warm-up and drain included.
  sent: Type.Number(),
  statuses: Type.Record(Type.String(), Type.Number()),
  refusedWithoutRetryAfter: Type.Number(),
  /** Connections that ended with a request on them. */
  broken: Type.Number(),
  reconnects: Type.Number(),
  /** Arrivals that never found a free connection. */
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
  /** Of the pings meant for the window, once for each subscriber: from the intended send to an event at least as new. */
  latency: Latency,
  /** How many of those were skipped because a newer one was delivered instead. */
  superseded: Type.Number(),
  lag: Latency,
  usage: Usage,
  /** Resident at the end of the window. */
  rssBytes: Type.Number(),
});
export type PresenceWindow = Static<typeof PresenceWindow>;

export const PresenceResult = Type.Object({
  marks: Type.Array(PresenceMark),
  windows: Type.Array(PresenceWindow),
  /** What makes the figures worthless. */
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
