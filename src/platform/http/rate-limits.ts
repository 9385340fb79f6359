import { type Redis } from "ioredis";
import ipaddr from "ipaddr.js";
import { type RateLimiterRedis } from "rate-limiter-flexible";

import { type Config } from "../config/config.ts";
import { type AppError, limited } from "../errors.ts";
import { type Log } from "../logger.ts";
import { type Metrics } from "../telemetry/metrics.ts";
import { RateWindows } from "./rate-windows.ts";
import { isReply, warnOfRedis } from "../bus/redis-advice.ts";

/**
 * Length of a counting window: the requests of a whole window may come at once. It is shorter than
 * the 14 seconds for which a web SDK retries.
 */
const WINDOW_S = 5;
// Reports to Redis per key until its limit is reached: enough to be accurate, too few to cost much
// time.
const PARTS = 50;
// Fewest requests per report. Most sessions send one request per window, and reporting it would cost
// a fifth of ingesting a batch.
const PART_MIN = 2;
// Maximum number of keys counted. A client with more addresses evades the limit per address.
const KEYS_MAX = 50_000;

export type RateLimitKind = "project" | "session" | "address";
export type RateLimits = Record<RateLimitKind, RateLimit | undefined> & { rows: RowLimits };

/** Kinds of rows that untrusted clients can create, named as in the metrics. */
export type RowKind = "starts" | "installs" | "image_names" | "presence_users";
export type RowLimits = Record<RowKind, RowLimit>;

const ROWS: Record<RowKind, string> = {
  starts: "session starts",
  installs: "new users",
  image_names: "new images",
  presence_users: "new users",
};

/**
 * Opens the configured limits. With Redis, limits per key are shared by all processes; without it
 * each process counts alone.
 */
export async function openRateLimits(
  { rateLimits, rowLimits, redis: named }: Pick<Config, "rateLimits" | "rowLimits" | "redis">,
  redis: Redis | undefined,
  metrics: Metrics,
  log: Log,
): Promise<RateLimits> {
  const open = async (kind: string, perSecond: number | undefined, what: string) => {
    if (perSecond === undefined) return undefined;
    if (redis === undefined) return new RateLimit({ kind, perSecond, what }, metrics);
    // Loaded only with Redis, to save memory.
    const { RateLimiterRedis } = await import("rate-limiter-flexible");
    const limiter = new RateLimiterRedis({
      points: perSecond * WINDOW_S,
      duration: WINDOW_S,
      storeClient: redis,
      keyPrefix: `${named?.prefix}limit:${kind}`,
      rejectIfRedisNotReady: true,
    });
    const onFailure = (error: unknown) => {
      // An unreachable Redis is already reported by the bus.
      if (isReply(error))
        warnOfRedis(log, named?.prefix ?? "", error, "Redis does not share the rate limits");
    };
    return new RateLimit({ kind, perSecond, what }, metrics, { limiter, onFailure });
  };
  const perKey = async (kind: RateLimitKind) =>
    await open(kind, rateLimits[kind], `requests of this ${kind}`);
  const rows = async (kind: RowKind) => {
    const { perSecond, perAddress } = rowLimits[kind];
    const here =
      perSecond === undefined
        ? undefined
        : new RateLimit({ kind, perSecond, what: ROWS[kind] }, metrics);
    const ofAddress = await open(`${kind}_address`, perAddress, `${ROWS[kind]} of this address`);
    return new RowLimit(here, ofAddress);
  };
  return {
    project: await perKey("project"),
    session: await perKey("session"),
    address: await perKey("address"),
    rows: {
      starts: await rows("starts"),
      installs: await rows("installs"),
      image_names: await rows("image_names"),
      presence_users: await rows("presence_users"),
    },
  };
}

type RateLimitOptions = {
  /** Label of the limit in the metrics. */
  kind: string;
  perSecond: number;
  /** Description of the limited thing for the error message. */
  what: string;
};

/** Counter shared by all processes. */
type SharedLimit = { limiter: RateLimiterRedis; onFailure: (error: unknown) => void };

/**
 * Limits the requests of each key. A process counts by itself and decides at once; in the background
 * it reports to Redis, which says when all processes together have accepted too many. While Redis is
 * unavailable or silent, or after it was flushed, each process goes by its own count.
 */
export class RateLimit {
  readonly #kind: string;
  readonly #what: string;
  readonly #points: number;
  readonly #here = new RateWindows(WINDOW_S * 1000, KEYS_MAX);
  readonly #all: SharedLimit | undefined;
  readonly #part: number;
  readonly #metrics: Metrics;

  constructor({ kind, perSecond, what }: RateLimitOptions, metrics: Metrics, all?: SharedLimit) {
    this.#kind = kind;
    this.#what = what;
    this.#points = perSecond * WINDOW_S;
    this.#all = all;
    this.#part = Math.max(PART_MIN, Math.floor(this.#points / PARTS));
    this.#metrics = metrics;
  }

  /** Counts a request. Throws 429 when there are too many. */
  take(key: string | number): void {
    const refuse = this.count(key);
    if (refuse !== undefined) throw refuse();
  }

  /** Counts a request; if there are too many returns a function that makes the error. */
  count(key: string | number): (() => AppError) | undefined {
    const { count, leftMs } = this.#here.count(key);
    if (count > this.#points)
      return () => {
        this.#metrics.limited.inc({ limit: this.#kind });
        const seconds = Math.min(Math.max(Math.ceil(leftMs / 1000), 1), WINDOW_S);
        return limited(`too many ${this.#what}, send it again`, seconds);
      };
    if (this.#all !== undefined && count % this.#part === 0) void this.#tell(this.#all, key);
    return undefined;
  }

  async #tell({ limiter, onFailure }: SharedLimit, key: string | number): Promise<void> {
    try {
      const { consumedPoints, msBeforeNext } = await limiter.penalty(key, this.#part);
      // Bound the time: a Redis key without an expiry must not block for ever.
      if (consumedPoints > limiter.points)
        this.#here.block(key, Math.min(Math.max(msBeforeNext, 1), WINDOW_S * 1000));
    } catch (error) {
      // Fall back to this process's own count.
      onFailure(error);
    }
  }
}

/**
 * Limits how many rows untrusted clients can create: per client network, and in total per process.
 */
export class RowLimit {
  readonly #here: RateLimit | undefined;
  readonly #ofAddress: RateLimit | undefined;

  constructor(here: RateLimit | undefined, ofAddress: RateLimit | undefined) {
    this.#here = here;
    this.#ofAddress = ofAddress;
  }

  get isOff(): boolean {
    return this.#here === undefined && this.#ofAddress === undefined;
  }

  /**
   * Counts a row. Throws 429 if there are too many. `network` is undefined if many clients may
   * share the address.
   */
  take(network: string | undefined): void {
    const refuse = this.count(network);
    if (refuse !== undefined) throw refuse();
  }

  /** Counts a row; if there are too many returns a function that makes the error. */
  count(network: string | undefined): (() => AppError) | undefined {
    // Checked first, so that one address cannot use up the total.
    const ofAddress = network === undefined ? undefined : this.#ofAddress?.count(network);
    return ofAddress ?? this.#here?.count("");
  }
}

/**
 * Returns the network that counts as one client: an IPv4 address, or the /64 of an IPv6 address,
 * because one machine can use every address in its /64.
 */
export function networkOf(address: string): string {
  return address.includes(":")
    ? ipaddr.IPv6.parse(address)
        .parts.slice(0, 4)
        .map((part) => part.toString(16))
        .join(":")
    : address;
}
