import { type Redis } from "ioredis";

import { type Bus, type BusListener, Listeners, Outbox } from "./bus.ts";
import { type Log } from "./log.ts";

// Together with the client's patience less than the five seconds in which a loss is to be known.
const HEARTBEAT_MS = 1000;

/** The bus over Redis, with a connection of its own for listening. */
export class RedisBus implements Bus {
  readonly name = "redis";
  readonly #redis: Redis;
  readonly #subscriber: Redis;
  readonly #prefix: string;
  readonly #log: Log;
  readonly #listeners: Listeners;
  readonly #outbox = new Outbox(async (byChannel) => await this.#send(byChannel));
  readonly #timer: NodeJS.Timeout;
  #isUp = false;

  /** Whether or not Redis is there: it is picked up when it comes. */
  constructor(redis: Redis, { prefix, log }: { prefix: string; log: Log }) {
    this.#redis = redis;
    this.#prefix = prefix;
    this.#log = log;
    this.#listeners = new Listeners(log);
    this.#subscriber = redis.duplicate({ autoResubscribe: false });
    // Once for each kind of trouble, not for each attempt.
    let told = "";
    this.#subscriber.on("error", (error) => {
      if (told !== error.message) log.warn({ err: error }, "Redis is away");
      told = error.message;
    });
    this.#subscriber.on("ready", () => (told = ""));
    this.#subscriber.on("ready", () => void this.#listen());
    this.#subscriber.on("close", () => this.#become(false));
    this.#subscriber.on("message", (channel, packed) =>
      this.#listeners.unpack(channel.slice(prefix.length), packed),
    );
    // An answer to each is due in time, or the client gives the connection up and makes a new one.
    this.#timer = setInterval(() => {
      redis.ping().catch(() => undefined);
      this.#subscriber.ping().catch(() => undefined);
    }, HEARTBEAT_MS);
  }

  get isUp(): boolean {
    return this.#isUp && this.#redis.status === "ready";
  }

  publish(channel: string, message: unknown): void {
    if (this.isUp) this.#outbox.add(channel, message);
  }

  subscribe(channels: string[], listener: BusListener): void {
    this.#listeners.add(channels, listener);
    if (this.#isUp) void this.#listen();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    this.#subscriber.disconnect();
  }

  async #listen(): Promise<void> {
    const names = this.#listeners.channels.map((channel) => this.#prefix + channel);
    try {
      if (names.length > 0) await this.#subscriber.subscribe(...names);
      this.#become(true);
      this.#listeners.missed();
    } catch (error) {
      this.#log.warn({ err: error }, "Redis does not let us listen");
      this.#subscriber.disconnect(true);
    }
  }

  #become(isUp: boolean): void {
    if (this.#isUp !== isUp) this.#log.warn({ bus: this.name, up: isUp }, "bus changed");
    this.#isUp = isUp;
  }

  async #send(byChannel: Map<string, string[]>): Promise<void> {
    const pipeline = this.#redis.pipeline();
    for (const [channel, texts] of byChannel)
      pipeline.publish(this.#prefix + channel, this.#listeners.pack(texts));
    await pipeline.exec().catch(() => undefined);
  }
}
