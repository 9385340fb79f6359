import { type Redis } from "ioredis";

import { type Bus, type BusListener, FAREWELL, Listeners, Outbox, PULSE } from "./bus.ts";
import { doneWithin } from "../time-limit.ts";
import { type Log } from "../logger.ts";
import { warnRarely } from "../rare-warnings.ts";
import { isReply, warnOfRedis } from "./redis-advice.ts";

const BEAT_MS = 1000;
// Silence after which the bus is down. Less than five seconds, within which a loss must be noticed.
const SILENCE_MS = 3000;
const KEPT_MS = 60_000;
const FAREWELL_MS = 200;

/**
 * Bus over Redis, with a separate connection for subscriptions. It is up while Redis accepts writes
 * and its own heartbeats come back: a connection alone may lead to a replica, to a full server, or
 * to one that denies this user everything.
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
  /** Time when the subscriber was last made to reconnect. */
  #movedMs = Number.NEGATIVE_INFINITY;
  #heardMs = Number.NEGATIVE_INFINITY;
  #writtenMs = Number.NEGATIVE_INFINITY;
  #isRefused = false;
  #wasUp = false;

  /** Redis need not be reachable yet: the bus goes up once it is. */
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

  /** Publishes even while Redis refuses writes: subscribers still hear it. */
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
    await doneWithin(FAREWELL_MS, farewell);
  }

  async #listen(): Promise<void> {
    const names = this.#listeners.channels.map((channel) => this.#prefix + channel);
    try {
      await this.#subscriber.subscribe(...names);
      const wasUp = this.isUp;
      this.#isListening = true;
      // Listeners added while the bus is up may have missed messages; otherwise all are notified
      // when it comes up.
      if (wasUp) this.#listeners.missed();
      await this.#beat();
    } catch (error) {
      // The next heartbeat retries on the same connection: a new one would be refused, too.
      this.#warn(error);
    }
  }

  #receive(channel: string, packed: string): void {
    if (!this.#listeners.unpack(channel.slice(this.#prefix.length), packed)) return;
    this.#heardMs = performance.now();
    this.#note();
  }

  /** Writes like presence does, and publishes a heartbeat, which this process must hear itself. */
  async #beat(): Promise<void> {
    // Ping with a timeout: the client reconnects if no answer comes.
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

  /**
   * Reconnects the subscriber if its own messages do not come back: after a failover it may still
   * be connected to the old server.
   */
  #moveOn(): void {
    const silentSinceMs = performance.now() - SILENCE_MS;
    const isSilent = this.#isListening && this.#writtenMs > silentSinceMs;
    if (!isSilent || Math.max(this.#heardMs, this.#movedMs) > silentSinceMs) return;
    this.#movedMs = performance.now();
    this.#subscriber.disconnect(true);
  }

  /** Logs when the bus goes up or down. */
  #note(): void {
    const { isUp } = this;
    if (this.#wasUp === isUp) return;
    this.#wasUp = isUp;
    warnRarely(this.#log, { bus: this.name }, isUp ? "the bus is up" : "the bus is down");
    if (isUp) this.#listeners.missed();
  }

  /**
   * Logs all failures under one message: what a user may not subscribe to it mostly may not publish
   * either.
   */
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
