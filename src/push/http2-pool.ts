import { type OutgoingHttpHeaders } from "node:http2";

import { type Log } from "../platform/logger.ts";
import { type Exchange, Http2Session, type SessionLimits, type Tls } from "./http2-session.ts";

export type PoolLimits = SessionLimits & {
  sessionsMin: number;
  sessionsMax: number;
  /**
   * Streams per session from which on another session is opened. Bun takes longer to open a stream
   * the more there are: 43 µs of CPU for each push with 900, 27 with 225.
   */
  streamsEasy: number;
  /** Sessions up to which `streamsEasy` opens another one. */
  sessionsEasy: number;
  /** Delay between two new sessions: a peer may allow few streams at first and many a moment later. */
  growMs: number;
  reconnectMsMin: number;
  reconnectMsMax: number;
  /** Time for which pushes wait while there is no connection at all. */
  waitMs: number;
  /** Time without a request after which the connections are closed. */
  idleMs: number;
  tickMs: number;
};

export const POOL_LIMITS: PoolLimits = {
  streams: 900,
  connectMs: 5000,
  streamMs: 10_000,
  silenceMs: 2000,
  pongMs: 3000,
  sessionsMin: 2,
  sessionsMax: 16,
  streamsEasy: 200,
  sessionsEasy: 8,
  growMs: 250,
  reconnectMsMin: 100,
  reconnectMsMax: 5000,
  waitMs: 10_000,
  idleMs: 300_000,
  tickMs: 250,
};

const CLOSED = "the sender was closed";

type Waiting = { untilMs: number; resolve: (problem: string | undefined) => void };

/** Connections to one provider, opened on demand and replaced when they end. */
export class Http2Pool implements AsyncDisposable {
  readonly #origin: string;
  readonly #log: Log;
  readonly #limits: PoolLimits;
  readonly #tls: Tls;
  /** Sessions that take streams, now or soon. */
  readonly #sessions = new Set<Http2Session>();
  /** Sessions that only finish their open streams. */
  readonly #retired = new Set<Http2Session>();
  readonly #queue = new Set<Waiting>();
  #timer: NodeJS.Timeout | undefined;
  #lastOpenMs = Number.NEGATIVE_INFINITY;
  #lastUseMs = Number.NEGATIVE_INFINITY;
  /** Time since which pushes wait and no session is ready. */
  #cutOffMs: number | undefined;
  #failures = 0;
  #reconnectMs = Number.NEGATIVE_INFINITY;
  #lastFailure = "there was no connection";
  #closed = false;

  constructor(
    origin: string,
    { log, limits, tls = {} }: { log: Log; limits: PoolLimits; tls?: Tls | undefined },
  ) {
    this.#origin = origin;
    this.#log = log;
    this.#limits = limits;
    this.#tls = tls;
  }

  get sessions(): number {
    return this.#sessions.size + this.#retired.size;
  }

  get hasRoom(): boolean {
    for (const { room } of this.#sessions) if (room > 0) return true;
    return false;
  }

  /**
   * Waits for room in the order of the calls. Resolves with the reason if there will be none. Rejects
   * with the signal's reason.
   */
  async room(signal: AbortSignal, waitMs: number): Promise<string | undefined> {
    signal.throwIfAborted();
    if (this.#closed) return CLOSED;
    const nowMs = performance.now();
    const { promise, resolve, reject } = Promise.withResolvers<string | undefined>();
    const waiting = { untilMs: nowMs + waitMs, resolve };
    const abort = () => {
      if (this.#queue.delete(waiting)) reject(signal.reason);
    };
    this.#queue.add(waiting);
    signal.addEventListener("abort", abort, { once: true });
    this.#timer ??= setInterval(() => this.#tick(), this.#limits.tickMs).unref();
    this.#growForQueue(nowMs);
    try {
      return await promise;
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }

  /** Sends a request. Network errors resolve to `lost`. */
  request(headers: OutgoingHttpHeaders, body: string | Buffer): Promise<Exchange> {
    const session = this.#roomiest();
    if (session === undefined)
      return Promise.resolve({ kind: "lost", reason: "there was no room", processed: false });
    const { streamsEasy, sessionsEasy } = this.#limits;
    if (session.inFlight >= streamsEasy && this.#sessions.size < sessionsEasy)
      this.#grow(performance.now(), sessionsEasy);
    return session.exchange(headers, body);
  }

  /** Closes all connections; requests in flight are lost. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    clearInterval(this.#timer);
    for (const waiting of this.#queue) this.#release(waiting, CLOSED);
    const sessions = [...this.#sessions, ...this.#retired];
    for (const session of sessions) session.destroy(CLOSED);
    await Promise.all(sessions.map((session) => session.ended));
  }

  #roomiest(): Http2Session | undefined {
    let best: Http2Session | undefined;
    let bestRoom = 0;
    for (const session of this.#sessions) {
      const { room } = session;
      if (room > bestRoom) {
        best = session;
        bestRoom = room;
      }
    }
    return best;
  }

  /** Lets as many go as there is room for. A caller that finds the room taken asks again. */
  #serveQueue(): void {
    if (this.#queue.size === 0) return;
    let room = 0;
    for (const session of this.#sessions) room += Math.max(0, session.room);
    for (const waiting of this.#queue) {
      if (room <= 0) return;
      room -= 1;
      this.#release(waiting, undefined);
    }
  }

  #release(waiting: Waiting, problem: string | undefined): void {
    this.#queue.delete(waiting);
    waiting.resolve(problem);
  }

  #growForQueue(nowMs: number): void {
    if (this.#queue.size > 0) this.#grow(nowMs, this.#limits.sessionsMax);
  }

  #grow(nowMs: number, sessionsMax: number): void {
    const { sessionsMin, growMs } = this.#limits;
    if (this.#closed || nowMs < this.#reconnectMs) return;
    while (this.#sessions.size < sessionsMin) this.#open(nowMs);
    if (this.#sessions.size >= sessionsMax || nowMs - this.#lastOpenMs < growMs) return;
    for (const session of this.#sessions) if (session.isConnecting) return;
    this.#open(nowMs);
  }

  #open(nowMs: number): void {
    this.#lastOpenMs = nowMs;
    this.#lastUseMs = nowMs;
    const events = {
      room: () => this.#serveQueue(),
      retired: () => this.#retire(session),
      ended: () => this.#forget(session),
    };
    const session = new Http2Session(this.#origin, this.#limits, events, this.#tls);
    this.#sessions.add(session);
  }

  #forget(session: Http2Session): void {
    this.#retired.delete(session);
    const { why, hasAnswered } = session;
    this.#log.debug({ origin: this.#origin, why, hasAnswered }, "push connection ended");
  }

  #retire(session: Http2Session): void {
    if (!this.#sessions.delete(session)) return;
    this.#retired.add(session);
    const nowMs = performance.now();
    if (session.hasAnswered) this.#failures = 0;
    // Sessions that fail together count as one failure.
    else if (nowMs >= this.#reconnectMs && !this.#closed) this.#backOff(nowMs, session.why);
    this.#growForQueue(nowMs);
  }

  /** Delays the next connection after one that failed, so that a provider that is down is spared. */
  #backOff(nowMs: number, why: string): void {
    const { reconnectMsMin, reconnectMsMax } = this.#limits;
    const delayMs = Math.min(reconnectMsMin * 2 ** this.#failures, reconnectMsMax);
    this.#failures += 1;
    this.#reconnectMs = nowMs + delayMs * (0.5 + Math.random() / 2);
    this.#lastFailure = why;
    this.#log.warn({ origin: this.#origin, why, failures: this.#failures }, "push provider away");
  }

  #tick(): void {
    const nowMs = performance.now();
    let inFlight = 0;
    let isReady = false;
    for (const session of [...this.#sessions, ...this.#retired]) {
      session.tick(nowMs);
      inFlight += session.inFlight;
      isReady ||= session.isReady;
    }
    if (isReady || this.#queue.size === 0) this.#cutOffMs = undefined;
    else this.#cutOffMs ??= nowMs;
    this.#serveQueue();
    const isCutOff = this.#cutOffMs !== undefined && nowMs - this.#cutOffMs > this.#limits.waitMs;
    if (isCutOff) this.#cutOffMs = undefined;
    for (const waiting of this.#queue)
      if (isCutOff) this.#release(waiting, this.#lastFailure);
      else if (nowMs >= waiting.untilMs) this.#release(waiting, "no connection had room in time");
    if (inFlight > 0 || this.#queue.size > 0) this.#lastUseMs = nowMs;
    else if (nowMs - this.#lastUseMs > this.#limits.idleMs) this.#rest();
    this.#growForQueue(nowMs);
  }

  #rest(): void {
    const sessions = [...this.#sessions];
    this.#sessions.clear();
    for (const session of sessions) {
      this.#retired.add(session);
      session.retire();
    }
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}
