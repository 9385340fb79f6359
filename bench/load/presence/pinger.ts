import { type Connection, type Endpoint, openConnections } from "../connection.ts";
import { LatencyRecorder } from "../latency.ts";
import { Ring } from "../ring.ts";
import type { Deliveries } from "./deliveries.ts";
import type { PingRequests } from "./names.ts";

const TICK_MS = 1;
const QUEUE_MAX = 65_536;
const ANSWERS_TIMEOUT_MS = 10_000;

type Due = { user: number; intendedAtMs: number };

/** Sends pings over a few keep-alive connections. */
export class Pinger {
  readonly #connections: Connection[];
  readonly #requests: PingRequests;
  readonly #deliveries: Deliveries;
  readonly #free: Ring<Connection>;
  readonly #due = new Ring<Due>(QUEUE_MAX);
  readonly #lag = new LatencyRecorder();
  #ticker: Timer | undefined;
  #underWay = 0;
  #answered = 0;
  #settled: (() => void) | undefined;
  // Set at saturation, when pings are sent only as earlier ones arrive.
  #arrived: (() => number) | undefined;

  private constructor(connections: Connection[], requests: PingRequests, deliveries: Deliveries) {
    this.#connections = connections;
    this.#requests = requests;
    this.#deliveries = deliveries;
    this.#free = new Ring<Connection>(connections.length * 2);
    for (const connection of connections) this.#freed(connection);
  }

  static async open(
    count: number,
    endpoint: Endpoint,
    requests: PingRequests,
    deliveries: Deliveries,
  ): Promise<Pinger> {
    const ignore = { answered: () => {}, broken: () => {}, reconnected: () => {} };
    const connections = await openConnections(count, endpoint, ignore);
    const pinger = new Pinger(connections, requests, deliveries);
    const events = {
      answered: (connection: Connection, { status }: { status: number }) => {
        if (status === 200) pinger.#answered++;
        else deliveries.problem(`a ping was answered ${status}`);
        pinger.#finished(connection);
      },
      broken: () => {
        deliveries.problem("a connection ended with a ping on it");
        pinger.#finished(undefined);
      },
      reconnected: (connection: Connection) => pinger.#freed(connection),
    };
    for (const connection of connections) connection.events = events;
    return pinger;
  }

  /** Number of pings that were answered 200. */
  get answered(): number {
    return this.#answered;
  }

  /** Sends one ping for each of these users and waits for the answers. */
  async burst(users: number[]): Promise<void> {
    for (const user of users) this.#arrive(user, performance.now());
    await this.#settle();
  }

  /** Sends pings at a rate, for users in turn, whether or not the server keeps up (open loop). */
  startRate(rate: number, users: number): void {
    const startedAtMs = performance.now();
    let arrivals = 0;
    this.#tick(() => {
      const due = Math.floor(((performance.now() - startedAtMs) * rate) / 1000) + 1;
      for (; arrivals < due; arrivals++)
        this.#arrive(arrivals % users, startedAtMs + (arrivals * 1000) / rate);
    });
  }

  /**
   * Sends as many pings of the first user as possible, with one per connection between being sent
   * and having arrived. Without that bound a server that only queues would look fast, and fill the
   * memory.
   */
  startSaturated(arrived: () => number): void {
    this.#arrived = arrived;
    this.#deliveries.onProgress = () => this.#pump();
    this.#tick(() => {});
    this.#pump();
  }

  restartLag(): void {
    this.#lag.reset();
  }

  get lag() {
    return this.#lag.summary();
  }

  /** Stops new pings; resolves when those that were due are sent and answered. */
  async stop(): Promise<void> {
    clearInterval(this.#ticker);
    this.#arrived = undefined;
    this.#deliveries.onProgress = () => {};
    await this.#settle();
  }

  close(): void {
    for (const connection of this.#connections) connection.close();
  }

  #tick(each: () => void): void {
    let tickedAtMs = performance.now();
    this.#ticker = setInterval(() => {
      const now = performance.now();
      this.#lag.recordMs(now - tickedAtMs - TICK_MS);
      tickedAtMs = now;
      each();
    }, TICK_MS);
  }

  #pump(): void {
    const arrived = this.#arrived;
    if (arrived === undefined) return;
    const limit = arrived() + this.#connections.length;
    while (this.#deliveries.lastSent(0) < limit) {
      const connection = this.#takeFree();
      if (connection === undefined) return;
      this.#send(connection, 0, performance.now());
    }
  }

  #arrive(user: number, intendedAtMs: number): void {
    const connection = this.#takeFree();
    if (connection !== undefined) this.#send(connection, user, intendedAtMs);
    else if (!this.#due.push({ user, intendedAtMs }))
      this.#deliveries.problem("a ping found no room in the queue");
  }

  #takeFree(): Connection | undefined {
    for (;;) {
      const connection = this.#free.shift();
      if (connection === undefined || connection.ready) return connection;
    }
  }

  #freed(connection: Connection): void {
    const due = this.#due.shift();
    if (due !== undefined) this.#send(connection, due.user, due.intendedAtMs);
    else {
      this.#free.push(connection);
      this.#pump();
    }
  }

  #send(connection: Connection, user: number, intendedAtMs: number): void {
    const sequence = this.#deliveries.send(user, intendedAtMs);
    this.#underWay++;
    connection.send(this.#requests.next(user, sequence));
  }

  #finished(connection: Connection | undefined): void {
    this.#underWay--;
    if (connection?.ready === true) this.#freed(connection);
    if (this.#underWay === 0) this.#settled?.();
  }

  async #settle(): Promise<void> {
    if (this.#underWay === 0) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#settled = resolve;
    const timer = setTimeout(() => {
      this.#deliveries.problem(`${this.#underWay} pings were never answered`);
      resolve();
    }, ANSWERS_TIMEOUT_MS);
    await promise;
    clearTimeout(timer);
  }
}
