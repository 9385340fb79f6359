import { type Connection, type Endpoint, openConnections } from "./connection.ts";
import { LatencyRecorder } from "./latency.ts";
import type { Stage, StageResult, Usage } from "./plan.ts";
import type { Requests } from "./requests.ts";
import { Ring } from "./ring.ts";
import type { Answer } from "./response.ts";
import { startSessions } from "./sessions.ts";
import type { Meter } from "./meter.ts";

const TICK_MS = 1;
const DRAIN_TIMEOUT_MS = 20_000;
const PROGRESS_MS = 250;
/** Most arrivals that wait for a free connection; more would overload the generator itself. */
const QUEUE_MAX = 65_536;
// Servers without sessions get a token of the same length as a real one.
const MADE_UP_TOKEN = "qrmzm0576vpj.0.mgjaueww.BLFF5p9sXZy6cpBNFGpcH4Ld3SK1GKh714ifrJ4SQpP3";

export type Progress = (done: number, detail: string) => void;

export class Engine {
  readonly #connections: Connection[];
  readonly #requests: Requests;
  readonly #meter: Meter;

  private constructor(connections: Connection[], requests: Requests, meter: Meter) {
    this.#connections = connections;
    this.#requests = requests;
    this.#meter = meter;
  }

  /** Connects and, if the target has sessions, starts one per connection. */
  static async open(options: {
    endpoint: Endpoint;
    connections: number;
    requests: Requests;
    projectKey: string | undefined;
    token: string | undefined;
    meter: Meter;
  }): Promise<Engine> {
    const { endpoint, requests, projectKey, token = MADE_UP_TOKEN, meter } = options;
    const ignore = { answered: () => {}, broken: () => {}, reconnected: () => {} };
    const connections = await openConnections(options.connections, endpoint, ignore);
    const tokens =
      projectKey === undefined ? [] : await startSessions(connections, projectKey, endpoint);
    for (const connection of connections)
      connection.head = requests.head(tokens[connection.index] ?? token);
    return new Engine(connections, requests, meter);
  }

  async run(stage: Stage, progress: Progress): Promise<StageResult> {
    const count = Math.min(stage.connections ?? this.#connections.length, this.#connections.length);
    // Answers to requests of the previous stage must not count in this one.
    for (const connection of this.#connections) connection.abandon();
    const run = new StageRun(stage, this.#connections.slice(0, count), this.#requests);
    run.start();
    const timer = setInterval(() => run.report(progress), PROGRESS_MS);
    try {
      await Bun.sleep(stage.warmupSeconds * 1000);
      const opened = await this.#meter.open();
      run.openWindow();
      await Promise.race([Bun.sleep(stage.seconds * 1000), run.exhausted]);
      run.closeWindow();
      const usage = await this.#meter.close(opened);
      await run.drain();
      return run.result(usage, this.#requests.bodyBytes);
    } finally {
      clearInterval(timer);
    }
  }

  close(): void {
    for (const connection of this.#connections) connection.close();
  }
}

/** Runs one stage: sends its requests and counts the answers. */
class StageRun {
  /** Resolves when as many requests are answered as the stage may send. */
  readonly exhausted: Promise<void>;
  readonly #exhaust: () => void;
  readonly #stage: Stage;
  readonly #requests: Requests;
  readonly #connections: Connection[];
  readonly #free: Ring<Connection>;
  readonly #due = new Ring<number>(QUEUE_MAX);
  readonly #latency = new LatencyRecorder();
  readonly #refusal = new LatencyRecorder();
  readonly #lag = new LatencyRecorder();
  readonly #statuses = new Map<number, number>();
  readonly #perSecond: number[] = [];
  #ticker: Timer | undefined;
  #startedAtMs = 0;
  #tickedAtMs = 0;
  #arrivals = 0;
  #windowFromMs = Number.POSITIVE_INFINITY;
  #windowToMs = Number.POSITIVE_INFINITY;
  #stopped = false;
  #sent = 0;
  #underWay = 0;
  #acknowledged = 0;
  #acknowledgedEver = 0;
  #refused = 0;
  #refusedWithoutRetryAfter = 0;
  #broken = 0;
  #reconnects = 0;
  #unsent = 0;
  #drained: (() => void) | undefined;

  constructor(stage: Stage, connections: Connection[], requests: Requests) {
    this.#stage = stage;
    this.#requests = requests;
    this.#connections = connections;
    // Twice as long, because a connection that was closed while free is added again when it
    // reconnects.
    this.#free = new Ring<Connection>(connections.length * 2);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.exhausted = promise;
    this.#exhaust = resolve;
  }

  start(): void {
    const events = {
      answered: (connection: Connection, answer: Answer) => this.#answered(connection, answer),
      broken: () => this.#onBroken(),
      reconnected: (connection: Connection) => {
        this.#reconnects++;
        this.#freed(connection);
      },
    };
    for (const connection of this.#connections) connection.events = events;
    this.#startedAtMs = performance.now();
    for (const connection of this.#connections) if (connection.ready) this.#freed(connection);
    this.#tickedAtMs = this.#startedAtMs;
    this.#ticker = setInterval(() => this.#tick(), TICK_MS);
  }

  openWindow(): void {
    this.#windowFromMs = performance.now();
  }

  closeWindow(): void {
    this.#windowToMs = performance.now();
    this.#stopped = true;
    clearInterval(this.#ticker);
    this.#unsent += this.#due.clear();
  }

  /**
   * Waits for outstanding answers, within a limit: a server that never answers must not block the
   * bench.
   */
  async drain(): Promise<void> {
    if (this.#underWay === 0) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#drained = resolve;
    const timer = setTimeout(resolve, DRAIN_TIMEOUT_MS);
    await promise;
    clearTimeout(timer);
  }

  report(progress: Progress): void {
    const elapsedMs = performance.now() - this.#startedAtMs;
    const totalMs = (this.#stage.warmupSeconds + this.#stage.seconds) * 1000;
    const rate = Math.round((this.#acknowledgedEver / elapsedMs) * 1000);
    progress(Math.min(elapsedMs / totalMs, 1), `${rate}/s acknowledged`);
  }

  result(usage: Usage, bodyBytes: number): StageResult {
    const seconds = (this.#windowToMs - this.#windowFromMs) / 1000;
    return {
      name: this.#stage.name,
      ...(this.#stage.rate !== undefined && { rate: this.#stage.rate }),
      connections: this.#connections.length,
      bodyBytes,
      seconds,
      acknowledged: this.#acknowledged,
      refused: this.#refused,
      latency: this.#latency.summary(),
      refusal: this.#refusal.summary(),
      lag: this.#lag.summary(),
      usage,
      perSecond: Array.from({ length: Math.floor(seconds) }, (_, at) => this.#perSecond[at] ?? 0),
      sent: this.#sent,
      statuses: Object.fromEntries([...this.#statuses].map(([status, n]) => [String(status), n])),
      refusedWithoutRetryAfter: this.#refusedWithoutRetryAfter,
      broken: this.#broken,
      reconnects: this.#reconnects,
      unsent: this.#unsent,
      unanswered: this.#underWay,
    };
  }

  #tick(): void {
    const now = performance.now();
    if (now >= this.#windowFromMs) this.#lag.recordMs(now - this.#tickedAtMs - TICK_MS);
    this.#tickedAtMs = now;
    if (this.#stage.rate !== undefined) this.#arrive(this.#stage.rate);
  }

  /** Sends all requests that are due by now, whether or not the server keeps up (open loop). */
  #arrive(rate: number): void {
    const elapsedMs = performance.now() - this.#startedAtMs;
    const due = Math.floor((elapsedMs * rate) / 1000) + 1; // The first arrives at the start.
    for (; this.#arrivals < due; this.#arrivals++) {
      const intendedAtMs = this.#startedAtMs + (this.#arrivals * 1000) / rate;
      const connection = this.#takeFree();
      if (connection !== undefined) this.#send(connection, intendedAtMs);
      else if (!this.#due.push(intendedAtMs)) this.#unsent++;
    }
  }

  #takeFree(): Connection | undefined {
    for (;;) {
      const connection = this.#free.shift();
      // Skips connections that the server closed meanwhile: they are added again when they
      // reconnect.
      if (connection === undefined || connection.ready) return connection;
    }
  }

  #freed(connection: Connection): void {
    if (this.#stopped) return;
    if (this.#stage.rate === undefined) this.#send(connection, performance.now());
    else {
      const intendedAtMs = this.#due.shift();
      if (intendedAtMs === undefined) this.#free.push(connection);
      else this.#send(connection, intendedAtMs);
    }
  }

  #send(connection: Connection, intendedAtMs: number): void {
    if (this.#sent === this.#stage.requestsMax) return;
    connection.intendedAtMs = intendedAtMs;
    connection.sentAtMs = performance.now();
    this.#sent++;
    this.#underWay++;
    connection.send(this.#requests.next(connection.head));
  }

  #answered(connection: Connection, answer: Answer): void {
    const now = performance.now();
    this.#statuses.set(answer.status, (this.#statuses.get(answer.status) ?? 0) + 1);
    const inWindow = now >= this.#windowFromMs && now < this.#windowToMs;
    const { intendedAtMs, sentAtMs } = connection;
    const meantForWindow = intendedAtMs >= this.#windowFromMs && intendedAtMs < this.#windowToMs;
    if (answer.status === 200) {
      this.#acknowledgedEver++;
      if (meantForWindow) this.#latency.recordMs(now - intendedAtMs);
      if (inWindow) this.#countAcknowledged(now);
    } else if (answer.status === 503 || answer.status === 429) {
      if (!answer.retryAfter) this.#refusedWithoutRetryAfter++;
      if (meantForWindow) this.#refusal.recordMs(now - sentAtMs);
      if (inWindow) this.#refused++;
    }
    this.#finished();
    if (connection.ready) this.#freed(connection);
  }

  #countAcknowledged(now: number): void {
    this.#acknowledged++;
    const second = Math.floor((now - this.#windowFromMs) / 1000);
    this.#perSecond[second] = (this.#perSecond[second] ?? 0) + 1;
  }

  #onBroken(): void {
    this.#broken++;
    this.#finished();
  }

  #finished(): void {
    this.#underWay--;
    if (this.#underWay === 0 && this.#sent === this.#stage.requestsMax) this.#exhaust();
    if (this.#stopped && this.#underWay === 0) this.#drained?.();
  }
}
