import { type Clock } from "../platform/clock.ts";
import { type Log } from "../platform/logger.ts";
import { doneWithin } from "../platform/time-limit.ts";
import { warnRarely } from "../platform/rare-warnings.ts";
import { type Device, type Ping, DEVICES_MAX, deviceOf, mergeInto } from "./device.ts";
import { type LastSeen } from "./last-seen.ts";
import { type RedisDevices } from "./redis-devices.ts";

// Longer than a ping that another process took needs to reach the database.
const RECENT_MS = 5000;
// Budget for reading the stores: an expiry must be announced within 1 s.
const LOAD_MS = 400;
// Time that the other store gets once one has answered.
const GRACE_MS = 100;

/** Devices by user id; without `isRead` no store answered, and only recent pings are included. */
export type Known = { users: Map<string, Device[]>; isRead: boolean };

export type DeviceStoreDeps = {
  lastSeen: LastSeen;
  redis: RedisDevices | undefined;
  /** Returns whether recent pings are in Redis. */
  isRedisCurrent: () => boolean;
  clock: Clock;
  log: Log;
};

/**
 * Stores devices in PostgreSQL and Redis, and reads them from both. Pings that may not have got
 * there yet are kept in memory for some seconds.
 */
export class DeviceStore implements AsyncDisposable {
  readonly #deps: DeviceStoreDeps;
  #recent = new Map<string, Device[]>();
  #older = new Map<string, Device[]>();
  #turnedMs = 0;

  constructor(deps: DeviceStoreDeps) {
    this.#deps = deps;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#deps.lastSeen[Symbol.asyncDispose]();
  }

  /** Must be called several times a second: forgets pings that have reached the stores. */
  tick(): void {
    const nowMs = this.#deps.clock.elapsedMs();
    if (nowMs - this.#turnedMs < RECENT_MS) return;
    this.#older = this.#recent;
    this.#recent = new Map();
    this.#turnedMs = nowMs;
  }

  /** Stores a ping that this process took. */
  record(ping: Ping): void {
    this.#deps.lastSeen.record(ping);
    this.#deps.redis?.record(ping);
    this.hear(ping);
  }

  /** Remembers a ping that any process took. */
  hear(ping: Ping): void {
    const known = this.#recent.get(ping.userid);
    if (known === undefined) this.#recent.set(ping.userid, [deviceOf(ping)]);
    else mergeInto(known, deviceOf(ping), DEVICES_MAX);
  }

  /** Yields the user's devices by the pings of the last seconds. */
  *heard(userid: string): Generator<Device> {
    yield* this.#older.get(userid) ?? [];
    yield* this.#recent.get(userid) ?? [];
  }

  /** Loads users' devices within LOAD_MS; users without any are omitted. */
  async load(userids: string[]): Promise<Known> {
    const { lastSeen, redis, isRedisCurrent, log } = this.#deps;
    const answers: Map<string, Device[]>[] = [];
    // A Redis that is down or refuses writes has no current state.
    const asked = redis !== undefined && isRedisCurrent() ? [lastSeen, redis] : [lastSeen];
    const asking = asked.map(async (store) => {
      try {
        answers.push(await store.load(userids));
      } catch (error) {
        warnRarely(log, { err: error }, "presence not read");
      }
    });
    const graced = Promise.race(asking).then(async () => await Bun.sleep(GRACE_MS));
    await doneWithin(LOAD_MS, Promise.race([Promise.all(asking), graced]));
    const users = new Map<string, Device[]>();
    const sources = [...answers];
    for (const userid of userids) {
      const devices: Device[] = [];
      for (const source of sources) merge(devices, source.get(userid) ?? []);
      merge(devices, lastSeen.unwritten(userid));
      merge(devices, this.heard(userid));
      if (devices.length > 0) users.set(userid, devices);
    }
    return { users, isRead: sources.length > 0 };
  }
}

function merge(devices: Device[], news: Iterable<Device>): void {
  for (const device of news) mergeInto(devices, device, DEVICES_MAX);
}
