import { type Clock } from "../platform/clock.ts";
import { type Service } from "../platform/lifecycle.ts";
import { type Log } from "../platform/logger.ts";
import { warnRarely } from "../platform/rare-warnings.ts";
import { type Device, type Ping, DEVICES_MAX, deviceOf, mergeInto } from "./device.ts";
import { type LastSeen } from "./last-seen.ts";
import { type RedisDevices } from "./redis-devices.ts";

// Longer than what another process has heard takes to reach the database.
const RECENT_MS = 5000;
// Of the second in which everybody is to know of an expiry.
const LOAD_MS = 400;
const GRACE_MS = 100;

/** `isRead`: a store answered; without, there is only what this process heard lately. */
export type Known = { users: Map<string, Device[]>; isRead: boolean };

export type DeviceStoreDeps = {
  lastSeen: LastSeen;
  redis: RedisDevices | undefined;
  /** Returns whether recent pings are in Redis. */
  isRedisCurrent: () => boolean;
  clock: Clock;
  log: Log;
};

/** What is known of any user's devices: Redis and PostgreSQL, and before it got there what this process has heard. */
export class DeviceStore implements Service {
  readonly #deps: DeviceStoreDeps;
  #recent = new Map<string, Device[]>();
  #older = new Map<string, Device[]>();
  #turnedMs = 0;

  constructor(deps: DeviceStoreDeps) {
    this.#deps = deps;
  }

  start(signal: AbortSignal): void {
    this.#deps.lastSeen.start(signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#deps.lastSeen[Symbol.asyncDispose]();
  }

  /** To be called some times a second: forgets what has reached the stores. */
  tick(): void {
    const nowMs = this.#deps.clock.elapsedMs();
    if (nowMs - this.#turnedMs < RECENT_MS) return;
    this.#older = this.#recent;
    this.#recent = new Map();
    this.#turnedMs = nowMs;
  }

  /** A device of this process's own. */
  record(ping: Ping): void {
    this.#deps.lastSeen.record(ping);
    this.#deps.redis?.record(ping);
    this.hear(ping);
  }

  /** A device of any process. */
  hear(ping: Ping): void {
    const known = this.#recent.get(ping.userid);
    if (known === undefined) this.#recent.set(ping.userid, [deviceOf(ping)]);
    else mergeInto(known, deviceOf(ping), DEVICES_MAX);
  }

  /** What was heard of the user in the last seconds. */
  *heard(userid: string): Generator<Device> {
    yield* this.#older.get(userid) ?? [];
    yield* this.#recent.get(userid) ?? [];
  }

  /** What is known of users within LOAD_MS; a user of whom nothing is known is left out. */
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
    // What one store knows does not wait long for the other.
    const first = Promise.race([...asking, Bun.sleep(LOAD_MS)]);
    await Promise.race([
      Promise.all(asking),
      first.then(async () => await Bun.sleep(GRACE_MS)),
      Bun.sleep(LOAD_MS),
    ]);
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
