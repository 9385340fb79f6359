import { type Redis } from "ioredis";

import { type Bus, type BusListener, FAREWELL, Listeners, Outbox, PULSE } from "./bus.ts";
import { type Log } from "./log.ts";
import { warnRarely } from "./rare-warnings.ts";
import { isReply, warnOfRedis } from "./redis-advice.ts";

const BEAT_MS = 1000;
// Less than the five seconds in which a loss is to be known.
const SILENCE_MS = 3000;
const KEPT_MS = 60_000;
const FAREWELL_MS = 200;

/**
 * The bus over Redis, with a connection of its own for listening. It is up while Redis takes writes and what is published comes back:
 * a connection alone may lead to a replica, to a server that is full, or to one that this user may do nothing with.
 */
export class RedisBus implements Bus {
  readonly name = "redis";
  readonly #redis: Redis;
  readonly #subscriber: Redis;
  readonly #prefix: string;
  readonly #log: Log;
  readonly #listeners: Listeners;
  readonly #outbox = new Outbox(async (byChannel) => await this.#send(byChannel));
  readonly #timer: NodeJS.Timeout;
  #isListening = false;
  /** When the subscriber was made to connect anew. */
  #movedMs = Number.NEGATIVE_INFINITY;
  #heardMs = Number.NEGATIVE_INFINITY;
  #writtenMs = Number.NEGATIVE_INFINITY;
  #isRefused = false;
  #wasUp = false;

  /** Whether or not Redis is there: it is picked up when it comes. */
  constructor(redis: Redis, { prefix, log }: { prefix: string; log: Log }) {
    this.#redis = redis;
    this.#prefix = prefix;
    this.#log = log;
    this.#listeners = new Listeners(log);
    this.#subscriber = redis.duplicate({ autoResubscribe: false });
    this.#subscriber.on("error", (error) => this.#warn(error));
    this.#subscriber.on("ready", () => void this.#listen());
    this.#subscriber.on("close", () => {
      this.#isListening = false;
      this.#heardMs = Number.NEGATIVE_INFINITY;
      this.#note();
    });
    redis.on("ready", () => void this.#beat());
    redis.on("close", () => {
      this.#listeners.lost();
      this.#note();
    });
    this.#subscriber.on("message", (channel, packed) => this.#receive(channel, packed));
    this.#timer = setInterval(() => void this.#beat(), BEAT_MS);
  }

  get isUp(): boolean {
    const silentSinceMs = performance.now() - SILENCE_MS;
    return (
      this.#redis.status === "ready" &&
      this.#isListening &&
      !this.#isRefused &&
      this.#writtenMs > silentSinceMs &&
      this.#heardMs > silentSinceMs
    );
  }

  get hearsAll(): boolean {
    return this.isUp && this.#listeners.hearsPeers;
  }

  /** Also while only writes are refused: those who listen still hear it. */
  publish(channel: string, message: unknown): void {
    if (this.#redis.status === "ready") this.#outbox.add(channel, message);
    else this.#listeners.lost();
  }

  subscribe(channels: string[], listener: BusListener): void {
    this.#listeners.add(channels, listener);
    if (this.#isListening) void this.#listen();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    this.#subscriber.disconnect();
    if (this.#redis.status !== "ready") return;
    const farewell = this.#publishPulse(FAREWELL).catch(() => undefined);
    await Promise.race([farewell, Bun.sleep(FAREWELL_MS)]);
  }

  async #listen(): Promise<void> {
    const names = this.#listeners.channels.map((channel) => this.#prefix + channel);
    try {
      await this.#subscriber.subscribe(...names);
      const wasUp = this.isUp;
      this.#isListening = true;
      // Those who were added lately may have missed something; all others are told when the bus is up.
      if (wasUp) this.#listeners.missed();
      await this.#beat();
    } catch (error) {
      // The next beat tries again, on the same connection: one that Redis refuses this would be refused another one, too.
      this.#warn(error);
    }
  }

  #receive(channel: string, packed: string): void {
    if (!this.#listeners.unpack(channel.slice(this.#prefix.length), packed)) return;
    this.#heardMs = performance.now();
    this.#note();
  }

  /** Writes as presence does, and says that this process is there, which it must hear itself. */
  async #beat(): Promise<void> {
    // An answer is due in time, or the client gives the connection up and makes a new one.
    this.#subscriber.ping().catch(() => undefined);
    if (this.#subscriber.status === "ready" && !this.#isListening) void this.#listen();
    this.#moveOn();
    if (this.#redis.status === "ready") await this.#write();
    this.#note();
  }

  async #write(): Promise<void> {
    const key = `${this.#prefix}bus`;
    const [, failure] = await Promise.all([
      this.#publishPulse(this.#listeners.pulse).catch((error: unknown) => this.#warn(error)),
      this.#redis
        .hset(key, "beat", Date.now())
        .then(async () => await this.#redis.pexpire(key, KEPT_MS))
        .then(
          () => undefined,
          (error: unknown) => error,
        ),
    ]);
    this.#isRefused = isReply(failure);
    if (failure === undefined) this.#writtenMs = performance.now();
    else this.#warn(failure);
  }

  async #publishPulse(pulse: number): Promise<void> {
    await this.#redis.publish(this.#prefix + PULSE, this.#listeners.pack([String(pulse)]));
  }

  /** Listens elsewhere when nothing comes back of what is published: after a failover the old server may be cut off. */
  #moveOn(): void {
    const silentSinceMs = performance.now() - SILENCE_MS;
    const isSilent = this.#isListening && this.#writtenMs > silentSinceMs;
    if (!isSilent || Math.max(this.#heardMs, this.#movedMs) > silentSinceMs) return;
    this.#movedMs = performance.now();
    this.#subscriber.disconnect(true);
  }

  /** Tells of a change. */
  #note(): void {
    const { isUp } = this;
    if (this.#wasUp === isUp) return;
    this.#wasUp = isUp;
    warnRarely(this.#log, { bus: this.name }, isUp ? "the bus is up" : "the bus is down");
    if (isUp) this.#listeners.missed();
  }

  /** One message for all of it: what is refused to listening is mostly refused to publishing as well. */
  #warn(error: unknown): void {
    warnOfRedis(this.#log, this.#prefix, error, "Redis cannot be used");
  }

  async #send(byChannel: Map<string, string[]>): Promise<void> {
    const pipeline = this.#redis.pipeline();
    for (const [channel, texts] of byChannel)
      pipeline.publish(this.#prefix + channel, this.#listeners.pack(texts));
    const replies = await pipeline.exec().catch(() => null);
    if (replies === null || replies.some(([error]) => error !== null)) this.#listeners.lost();
  }
}
