import { type Redis } from "ioredis";
import ipaddr from "ipaddr.js";
import {
  type RateLimiterMemory,
  type RateLimiterRedis,
  type RateLimiterRes,
} from "rate-limiter-flexible";

import { type Config } from "./config.ts";
import { limited } from "./errors.ts";
import { type Metrics } from "./metrics.ts";

/** Requests are counted over this many seconds, so that as many seconds' worth may come at once. Less than a web SDK's patience of 14 seconds. */
const WINDOW_S = 5;
// Redis is told of a key's requests in so many parts of its limit: near enough, and too few to be felt.
const PARTS = 50;
// And never of one alone: most sessions send one in this time, and telling of it costs a fifth of taking a batch in.
const PART_MIN = 2;

export type RateLimitKind = "project" | "session" | "address";
export type RateLimits = Record<RateLimitKind, RateLimit | undefined>;

/** The limits that are set. With Redis they hold for all processes together, else for each. */
export async function openRateLimits(
  { rateLimits, redis: named }: Pick<Config, "rateLimits" | "redis">,
  redis: Redis | undefined,
  metrics: Metrics,
): Promise<RateLimits> {
  const open = async (kind: RateLimitKind) => {
    const perSecond = rateLimits[kind];
    if (perSecond === undefined) return undefined;
    // Memory that a server without limits need not spend.
    const { RateLimiterMemory, RateLimiterRedis } = await import("rate-limiter-flexible");
    const window = { points: perSecond * WINDOW_S, duration: WINDOW_S };
    const all =
      redis &&
      new RateLimiterRedis({
        ...window,
        storeClient: redis,
        keyPrefix: `${named?.prefix}limit:${kind}`,
        rejectIfRedisNotReady: true,
      });
    return new RateLimit(kind, new RateLimiterMemory(window), all, metrics);
  };
  return {
    project: await open("project"),
    session: await open("session"),
    address: await open("address"),
  };
}

/**
 * How many requests may come for one key. Each process counts by itself and answers at once; Redis is told in the background and says
 * when all processes together have let enough in. While it is away, silent or flushed every process goes on with its own count.
 */
export class RateLimit {
  readonly #kind: RateLimitKind;
  readonly #here: RateLimiterMemory;
  readonly #all: RateLimiterRedis | undefined;
  readonly #part: number;
  readonly #metrics: Metrics;

  constructor(
    kind: RateLimitKind,
    here: RateLimiterMemory,
    all: RateLimiterRedis | undefined,
    metrics: Metrics,
  ) {
    this.#kind = kind;
    this.#here = here;
    this.#all = all;
    this.#part = Math.max(PART_MIN, Math.floor(here.points / PARTS));
    this.#metrics = metrics;
  }

  /** Counts a request. Throws 429 when there are too many. */
  async take(key: string | number): Promise<void> {
    const counted = this.#here.consume(key);
    const { consumedPoints, msBeforeNext } = await counted.catch((over: RateLimiterRes) => over);
    if (consumedPoints > this.#here.points) {
      this.#metrics.limited.inc({ limit: this.#kind });
      // By the wall clock, which may jump.
      const seconds = Math.min(Math.max(Math.ceil(msBeforeNext / 1000), 1), WINDOW_S);
      throw limited(`too many requests of this ${this.#kind}, send it again`, seconds);
    }
    if (this.#all !== undefined && consumedPoints % this.#part === 0)
      void this.#tell(this.#all, key);
  }

  async #tell(all: RateLimiterRedis, key: string | number): Promise<void> {
    try {
      const { consumedPoints, msBeforeNext } = await all.penalty(key, this.#part);
      // Without a time a block would be for ever.
      const seconds = Math.max(msBeforeNext, 1) / 1000;
      if (consumedPoints > all.points) await this.#here.block(key, seconds);
    } catch {
      // Redis is away: what is counted here is the estimate.
    }
  }
}

/** What counts as one client: an IPv6 network of 64 bits, since each of its machines has as many addresses as it wants. */
export function networkOf(address: string): string {
  return address.includes(":")
    ? ipaddr.IPv6.parse(address)
        .parts.slice(0, 4)
        .map((part) => part.toString(16))
        .join(":")
    : address;
}
