import http2 from "node:http2";

export type Answer = {
  kind: "answer";
  status: number;
  retryAfter: string | undefined;
  text: string;
  /** Only a 200 may lack its end. */
  isWhole: boolean;
};
/** No answer came. Not processed: the peer says that it did nothing, so that sending it again is no second attempt. */
export type Lost = { kind: "lost"; reason: string; processed: boolean };
export type Exchange = Answer | Lost;

export type SessionLimits = {
  /** Of the streams at a time, at most; the peer may allow fewer. */
  streams: number;
  /** Until it takes streams. */
  connectMs: number;
  /** For an answer. */
  streamMs: number;
  /** After so long a silence, with answers due, the peer is asked whether it is there. */
  silenceMs: number;
  pongMs: number;
};

export type SessionEvents = {
  /** It may take another stream now. */
  room: () => void;
  /** It takes no new streams; those that run may still be answered. */
  retired: () => void;
  /** It is gone, and no stream of it left. */
  ended: () => void;
};

export type Tls = { ca?: string | undefined };

type Flight = {
  stream: http2.ClientHttp2Stream;
  startedMs: number;
  status: number;
  retryAfter: string | undefined;
  text: string;
  resolve: (exchange: Exchange) => void;
};

const TEXT_MAX = 16_384;
/** Stream ids end at 2^31, and only every second one is a client's. */
const STREAMS_EVER_MAX = 2 ** 29;
const { NGHTTP2_CANCEL, NGHTTP2_NO_ERROR, NGHTTP2_REFUSED_STREAM } = http2.constants;

/** One HTTP/2 connection to a provider. */
export class Http2Session {
  readonly #session: http2.ClientHttp2Session;
  readonly #limits: SessionLimits;
  readonly #events: SessionEvents;
  readonly #flights = new Set<Flight>();
  readonly #ended = Promise.withResolvers<void>();
  #state: "connecting" | "ready" | "retired" | "ended" = "connecting";
  #why = "the connection ended";
  #peerStreams = 0;
  /** Since when the peer takes no streams at all, until it allows some. */
  #barredMs: number | undefined = performance.now();
  #opened = 0;
  #answeredMs = Number.NEGATIVE_INFINITY;
  #aliveMs = performance.now();
  #pingedMs: number | undefined;

  constructor(origin: string, limits: SessionLimits, events: SessionEvents, tls: Tls = {}) {
    this.#limits = limits;
    this.#events = events;
    this.#session = http2.connect(origin, { ...tls, settings: { enablePush: false } });
    this.#session.on("remoteSettings", ({ maxConcurrentStreams = limits.streams }) => {
      this.#peerStreams = maxConcurrentStreams;
      if (maxConcurrentStreams === 0) this.#barredMs ??= performance.now();
      else this.#barredMs = undefined;
      if (this.#state === "connecting") this.#state = "ready";
      events.room();
    });
    this.#session.on("goaway", (code: number) => {
      this.#why = `the provider said GOAWAY ${code}`;
      this.retire();
    });
    this.#session.on("error", (error) => (this.#why = describe(error)));
    this.#session.on("close", () => this.#end());
  }

  /** It may take streams soon. */
  get isConnecting(): boolean {
    return this.#barredMs !== undefined;
  }

  get isReady(): boolean {
    return this.#state === "ready" && !this.isConnecting;
  }

  get hasAnswered(): boolean {
    return this.#answeredMs > 0;
  }

  get inFlight(): number {
    return this.#flights.size;
  }

  /** How it ended, for a log line. */
  get why(): string {
    return this.#why;
  }

  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  /** How many more streams it takes now. */
  get room(): number {
    if (this.#state !== "ready") return 0;
    return Math.min(this.#limits.streams, this.#peerStreams) - this.#flights.size;
  }

  /** Asks only where there is room. */
  exchange(headers: http2.OutgoingHttpHeaders, body: string | Buffer): Promise<Exchange> {
    return new Promise((resolve) => {
      const stream = this.#open(headers);
      if (stream === undefined) {
        resolve({ kind: "lost", reason: this.#why, processed: false });
        return;
      }
      const startedMs = performance.now();
      if (this.#flights.size === 0) this.#aliveMs = startedMs;
      const flight = { stream, startedMs, status: 0, retryAfter: undefined, text: "", resolve };
      this.#flights.add(flight);
      this.#follow(flight);
      stream.end(body);
      if (++this.#opened === STREAMS_EVER_MAX) this.retire();
    });
  }

  /** Looks after what is overdue; the pool calls it now and then. */
  tick(nowMs: number): void {
    const { connectMs, streamMs, silenceMs, pongMs } = this.#limits;
    if (this.#state === "ended") return;
    const isBarred = this.#barredMs !== undefined && nowMs - this.#barredMs > connectMs;
    if (isBarred && this.#state !== "retired") {
      this.#why = `no ${this.#state === "connecting" ? "connection" : "streams"} within ${connectMs} ms`;
      this.retire();
    }
    if (this.#state === "connecting") return;
    for (const flight of this.#flights) {
      if (nowMs - flight.startedMs < streamMs) break;
      this.#settle(flight, lost(`no answer within ${streamMs} ms`));
      flight.stream.close(NGHTTP2_CANCEL);
      // Others were answered meanwhile, or else the whole connection is suspect.
      if (this.#answeredMs < flight.startedMs) this.retire();
    }
    if (this.#pingedMs !== undefined) {
      if (nowMs - this.#pingedMs > pongMs) this.destroy("the connection was silent");
    } else if (this.#flights.size > 0 && nowMs - this.#aliveMs > silenceMs) this.#ping(nowMs);
  }

  /** No new streams; ends when the last one has. */
  retire(): void {
    if (this.#state === "retired" || this.#state === "ended") return;
    this.#state = "retired";
    this.#events.retired();
    if (this.#flights.size === 0) this.destroy();
  }

  destroy(why?: string): void {
    if (why !== undefined) this.#why = why;
    if (this.#session.destroyed) this.#end();
    else this.#session.destroy();
  }

  #open(headers: http2.OutgoingHttpHeaders): http2.ClientHttp2Stream | undefined {
    try {
      return this.#session.request(headers);
    } catch (error) {
      if (!this.#session.closed && !this.#session.destroyed) throw error;
      this.retire();
      return undefined;
    }
  }

  #follow(flight: Flight): void {
    const { stream } = flight;
    stream.on("response", (headers) => {
      flight.status = headers[":status"] ?? 0;
      this.#answeredMs = performance.now();
      this.#aliveMs = this.#answeredMs;
      flight.retryAfter = headers["retry-after"];
      stream.setEncoding("utf8");
      stream.on("data", (chunk: string) => {
        if (flight.text.length < TEXT_MAX) flight.text += chunk;
      });
    });
    // "close" follows and tells the code; without a listener the error would end the process.
    stream.on("error", ignore);
    stream.on("close", () => this.#settle(flight, this.#fault(flight)));
  }

  /** What was wrong with how the stream ended. */
  #fault({ stream, status }: Flight): Lost | undefined {
    const code = stream.rstCode ?? NGHTTP2_NO_ERROR;
    if (status !== 0 && code === NGHTTP2_NO_ERROR) return undefined;
    // Streams beyond the last one that a GOAWAY names end with this code as well.
    if (code === NGHTTP2_REFUSED_STREAM)
      return { kind: "lost", reason: "the stream was refused", processed: false };
    if (this.#session.destroyed) return lost(this.#why);
    return lost(`the stream was reset with code ${code}`);
  }

  #settle(flight: Flight, fault: Lost | undefined): void {
    if (!this.#flights.delete(flight)) return;
    const { stream, status, retryAfter, text, resolve } = flight;
    // Half an error's body could tell something else than the whole; a success is one whatever follows.
    const isWhole = fault === undefined && stream.readableEnded;
    if (fault === undefined || status === 200)
      resolve({ kind: "answer", status, retryAfter, text, isWhole });
    else resolve(fault);
    if (this.#state === "ready") this.#events.room();
    else if (this.#state === "retired" && this.#flights.size === 0) this.destroy();
  }

  #ping(nowMs: number): void {
    this.#pingedMs = nowMs;
    this.#session.ping((error) => {
      if (error !== null) return;
      this.#pingedMs = undefined;
      this.#aliveMs = performance.now();
    });
  }

  #end(): void {
    if (this.#state === "ended") return;
    const wasRetired = this.#state === "retired";
    this.#state = "ended";
    if (!wasRetired) this.#events.retired();
    // The streams tell first, in this turn of the loop, what became of them.
    setImmediate(() => {
      for (const flight of this.#flights) this.#settle(flight, lost(this.#why));
      this.#ended.resolve();
      this.#events.ended();
    });
  }
}

function lost(reason: string): Lost {
  return { kind: "lost", reason, processed: true };
}

function ignore(): void {}

/** A code such as ECONNREFUSED where there is one: messages may hold anything. */
function describe(error: unknown): string {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return typeof code === "string" ? `the connection failed: ${code}` : "the connection failed";
}
