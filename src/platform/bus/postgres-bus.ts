import { type Bus, type BusListener, FAREWELL, Listeners, Outbox, PULSE } from "./bus.ts";
import { type Sql } from "../database/database.ts";
import { doneWithin } from "../time-limit.ts";
import { type Log } from "../logger.ts";
import { warnRarely } from "../rare-warnings.ts";

// PostgreSQL takes payloads of less than 8,000 bytes.
const PAYLOAD_BYTES_MAX = 7900;
const BEAT_MS = 1000;
// Silence after which a listener that does not hear its own heartbeat counts as cut off. Less than
// five seconds, within which a loss must be noticed.
const SILENCE_MS = 4000;
const FAREWELL_MS = 200;

/** Bus over PostgreSQL notifications: one channel per schema, many messages per notification. */
export class PostgresBus implements Bus {
  readonly name = "postgres";
  readonly #sql: Sql;
  readonly #log: Log;
  readonly #channel: string;
  readonly #listeners: Listeners;
  readonly #outbox = new Outbox(async (byChannel) => await this.#notify(byChannel));
  #heardMs = performance.now();
  #wasUp = true;
  #timer: NodeJS.Timeout | undefined;

  private constructor(sql: Sql, log: Log, channel: string) {
    this.#sql = sql;
    this.#log = log;
    this.#listeners = new Listeners(log);
    this.#channel = channel;
  }

  /** Resolves once it listens; `listener` is a pool whose sessions are not shared. */
  static async open(
    { sql, listener }: { sql: Sql; listener: Sql },
    log: Log,
  ): Promise<PostgresBus> {
    const [row] = await sql<[{ schema: string }]>`select current_schema() as schema`;
    const bus = new PostgresBus(sql, log, `floodgate_${row.schema}`);
    await listener.listen(
      bus.#channel,
      (payload) => bus.#receive(payload),
      // Also called after each reconnection, which the driver does by itself.
      () => bus.#listeners.missed(),
    );
    bus.#timer = setInterval(() => bus.#beat(), BEAT_MS);
    return bus;
  }

  get isUp(): boolean {
    return performance.now() - this.#heardMs < SILENCE_MS;
  }

  get hearsAll(): boolean {
    return this.isUp && this.#listeners.hearsPeers;
  }

  publish(channel: string, message: unknown): void {
    this.#outbox.add(channel, message);
  }

  subscribe(channels: string[], listener: BusListener): void {
    this.#listeners.add(channels, listener);
  }

  // The driver ends the listening connection together with its pool.
  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    const farewell = this.#notify(new Map([[PULSE, [String(FAREWELL)]]]));
    await doneWithin(FAREWELL_MS, farewell);
  }

  #receive(payload: string): void {
    const end = payload.indexOf("\n");
    if (this.#listeners.unpack(payload.slice(0, end), payload.slice(end + 1)))
      this.#heardMs = performance.now();
  }

  #beat(): void {
    this.#outbox.add(PULSE, this.#listeners.pulse);
    const { isUp } = this;
    if (this.#wasUp === isUp) return;
    this.#wasUp = isUp;
    warnRarely(this.#log, { bus: this.name }, isUp ? "the bus is up" : "the bus is down");
    if (isUp) this.#listeners.missed();
  }

  async #notify(byChannel: Map<string, string[]>): Promise<void> {
    const payloads = [...byChannel].flatMap(([channel, texts]) =>
      groups(texts).map((group) => `${channel}\n${this.#listeners.pack(group)}`),
    );
    const sql = this.#sql;
    try {
      await sql`
        select pg_notify(${this.#channel}, payload) from unnest(${payloads}::text[]) as payload`;
    } catch (error) {
      this.#listeners.lost();
      this.#log.debug({ err: error }, "notification lost");
    }
  }
}

/** Groups texts into as few payloads as possible, with room for the channel's name. */
function groups(texts: string[]): string[][] {
  const grouped: string[][] = [];
  let room = 0;
  for (const text of texts) {
    const bytes = Buffer.byteLength(text) + 1;
    if (bytes > room) {
      grouped.push([]);
      room = PAYLOAD_BYTES_MAX - 128;
    }
    grouped.at(-1)?.push(text);
    room -= bytes;
  }
  return grouped;
}
