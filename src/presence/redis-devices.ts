import { type Redis } from "ioredis";

import { WriteBehind } from "../platform/write-behind.ts";
import { type Device, type Ping, INVISIBLE, deviceOf, mergeInto } from "./device.ts";

const COLLECT_MS = 5;
// Fields kept for each user; a device has up to three.
const FIELDS_MAX = 300;
const KEEP_MS = 600_000;
const KINDS = { seen: "s", hidden: "h", bye: "b" };

/**
 * Stores the devices of users who pinged lately in Redis, one hash per user. A device has a field
 * for its newest visible ping, one for its newest invisible ping and one for its newest bye, so
 * that a ping is written without reading first: `<kind><clientid>` = `<epoch ms> <status>`.
 */
export class RedisDevices {
  readonly #redis: Redis;
  readonly #prefix: string;
  readonly #keepMs: number;
  #waiting: Ping[] = [];
  readonly #writer = new WriteBehind(COLLECT_MS, async () => await this.#write());

  constructor(redis: Redis, prefix: string, ttlMs: number) {
    this.#redis = redis;
    this.#prefix = `${prefix}presence:`;
    this.#keepMs = ttlMs + KEEP_MS;
  }

  /** Writes the ping some milliseconds later; drops it while Redis is down. */
  record(ping: Ping): void {
    if (this.#redis.status !== "ready") return;
    this.#waiting.push(ping);
    this.#writer.soon();
  }

  /** Loads devices by user id; users without any are omitted. */
  async load(userids: string[]): Promise<Map<string, Device[]>> {
    const users = new Map<string, Device[]>();
    if (this.#redis.status !== "ready") return users;
    const hashes = await Promise.all(
      userids.map(async (userid) => await this.#redis.hgetall(this.#prefix + userid)),
    );
    for (const [index, userid] of userids.entries()) {
      const devices = devicesOf(userid, hashes[index] ?? {});
      if (devices.length > 0) users.set(userid, devices);
    }
    return users;
  }

  async #write(): Promise<void> {
    const pings = this.#waiting;
    this.#waiting = [];
    const pipeline = this.#redis.pipeline();
    for (const ping of pings) {
      const key = this.#prefix + ping.userid;
      pipeline.hset(key, ...fieldOf(ping));
      pipeline.pexpire(key, this.#keepMs);
    }
    const replies = await pipeline.exec().catch(() => null);
    const grown = new Set(
      pings.filter((_, index) => replies?.[index * 2]?.[1] === 1).map(({ userid }) => userid),
    );
    // Not awaited, because the next pings must not wait for it.
    for (const userid of grown) this.#prune(this.#prefix + userid).catch(() => undefined);
  }

  /** Deletes a user's oldest fields, so that clients that invent client ids cannot fill Redis. */
  async #prune(key: string): Promise<void> {
    const fields = await this.#redis.hlen(key);
    if (fields <= FIELDS_MAX) return;
    const hash = await this.#redis.hgetall(key);
    const oldest = Object.entries(hash)
      .map(([field, value]) => ({ field, at: Number.parseFloat(value) }))
      .toSorted((a, b) => a.at - b.at)
      .slice(0, fields - FIELDS_MAX / 2);
    await this.#redis.hdel(key, ...oldest.map(({ field }) => field));
  }
}

function fieldOf({ clientid, at, status }: Ping): [field: string, value: string] {
  if (status === null) return [KINDS.bye + clientid, `${at} `];
  const kind = status === INVISIBLE ? KINDS.hidden : KINDS.seen;
  return [kind + clientid, `${at} ${status}`];
}

function devicesOf(userid: string, hash: Record<string, string>): Device[] {
  const devices: Device[] = [];
  for (const [field, value] of Object.entries(hash)) {
    const space = value.indexOf(" ");
    const at = Number(value.slice(0, space));
    const status = field.startsWith(KINDS.bye) ? null : value.slice(space + 1);
    mergeInto(devices, deviceOf({ userid, clientid: field.slice(1), at, status }), FIELDS_MAX);
  }
  return devices;
}
