import http2 from "node:http2";

import { codeOf } from "../platform/errors.ts";

export type Answer = {
  kind: "answer";
  status: number;
  retryAfter: string | undefined;
  text: string;
  /** False if the body was cut off, which only a 200 may be. */
  isWhole: boolean;
};
/** A request without an answer. If the peer says that it did not process it, resending it is safe. */
export type Lost = { kind: "lost"; reason: string; processed: boolean };
export type Exchange = Answer | Lost;

export type SessionLimits = {
  /** Limit of streams at a time; the peer may allow fewer. */
  streams: number;
  /** Time limit until the peer allows streams. */
  connectMs: number;
  /** Time limit for an answer. */
  streamMs: number;
  /** Silence after which a peer that owes answers is pinged. */
  silenceMs: number;
  /** Time limit for the answer to a ping. */
  pongMs: number;
};

export type SessionEvents = {
  /** The session may take another stream now. */
  room: () => void;
  /** The session takes no new streams; open ones may still be answered. */
  retired: () => void;
  /** The session and all of its streams have ended. */
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
/** Streams per session: ids end at 2^31, and clients use every second one. */
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
  /** Time since which the peer allows no streams at all; undefined while it does. */
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

  /** Returns whether the peer may yet allow streams. */
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

  /** Reason for its end, for a log line. */
  get why(): string {
    return this.#why;
  }

  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  /** Number of streams that it can take now. */
  get room(): number {
    if (this.#state !== "ready") return 0;
    return Math.min(this.#limits.streams, this.#peerStreams) - this.#flights.size;
  }

  /** Sends a request. The caller has seen that there is room. */
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

  /** Ends what is overdue. The pool calls it at regular intervals. */
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
      // Without any other answer meanwhile the whole connection is suspect.
      if (this.#answeredMs < flight.startedMs) this.retire();
    }
    if (this.#pingedMs !== undefined) {
      if (nowMs - this.#pingedMs > pongMs) this.destroy("the connection was silent");
    } else if (this.#flights.size > 0 && nowMs - this.#aliveMs > silenceMs) this.#ping(nowMs);
  }

  /** Takes no new streams, and ends when the last open one has. */
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
    // Without a listener an error would end the process; "close" follows with its code.
    stream.on("error", ignore);
    stream.on("close", () => this.#settle(flight, this.#fault(flight)));
  }

  /** Returns why the stream has no complete answer, if it has none. */
  #fault({ stream, status }: Flight): Lost | undefined {
    const code = stream.rstCode ?? NGHTTP2_NO_ERROR;
    if (status !== 0 && code === NGHTTP2_NO_ERROR) return undefined;
    // Streams above the last id in a GOAWAY frame end with this code as well.
    if (code === NGHTTP2_REFUSED_STREAM)
      return { kind: "lost", reason: "the stream was refused", processed: false };
    if (this.#session.destroyed) return lost(this.#why);
    return lost(`the stream was reset with code ${code}`);
  }

  #settle(flight: Flight, fault: Lost | undefined): void {
    if (!this.#flights.delete(flight)) return;
    const { stream, status, retryAfter, text, resolve } = flight;
    // A part of an error's body could be misread; a success stays one whatever its body is.
    const isWhole = fault === undefined && stream.readableEnded;
    if (fault === undefined || status === 200)
      resolve({ kind: "answer", status, retryAfter, text, isWhole });
    else resolve(fault);
    if (this.#state === "ready") this.#events.room();
    else if (this.#state === "retired" && this.#flights.size === 0) this.destroy();
  }

  #ping(nowMs: number): void {
    // Its "close" may be still to come.
    if (this.#session.destroyed) return;
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
    // The streams emit their own ends first, in this turn of the event loop.
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

/** Describes an error by its code, such as ECONNREFUSED. Messages may contain secrets. */
function describe(error: unknown): string {
  const code = codeOf(error);
  return code === "" ? "the connection failed" : `the connection failed: ${code}`;
}
