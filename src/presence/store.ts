import { type Clock } from "../platform/clock.ts";
import { unavailable } from "../platform/errors.ts";
import { type Log } from "../platform/log.ts";
import { type Device, type Ping, DEVICES_MAX, deviceOf, mergeInto } from "./device.ts";
import { type LastSeen } from "./last-seen.ts";
import { type RedisDevices } from "./redis-devices.ts";

// Longer than what another process has heard takes to reach the database.
const RECENT_MS = 5000;
// Of the second in which everybody is to know of an expiry.
const LOAD_MS = 400;

export type DeviceStoreDeps = {
  lastSeen: LastSeen;
  redis: RedisDevices | undefined;
  clock: Clock;
  log: Log;
};

/** What is known of any user's devices: Redis and PostgreSQL, and before it got there what this process has heard. */
export class DeviceStore {
  readonly #deps: DeviceStoreDeps;
  #recent = new Map<string, Device[]>();
  #older = new Map<string, Device[]>();
  #turnedMs = 0;

  constructor(deps: DeviceStoreDeps) {
    this.#deps = deps;
  }

  start(): void {
    this.#deps.lastSeen.start();
  }

  async stop(): Promise<void> {
    await this.#deps.lastSeen.stop();
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

  /** The devices of each user of whom anything is known, within LOAD_MS. Throws when no store answers. */
  async load(userids: string[]): Promise<Map<string, Device[]>> {
    const { lastSeen, redis, log } = this.#deps;
    const stores = redis === undefined ? [lastSeen] : [lastSeen, redis];
    // Each has its own bound: what one knows must not wait for the other.
    const answers = await Promise.allSettled(
      stores.map(async (store) => await Promise.race([store.load(userids), late()])),
    );
    const failed = answers.filter((answer) => answer.status === "rejected");
    for (const { reason } of failed) log.warn({ err: reason }, "presence not read");
    if (failed.length === stores.length) throw failed[0]?.reason;
    const users = new Map<string, Device[]>();
    for (const userid of userids) {
      const devices: Device[] = [];
      for (const answer of answers)
        if (answer.status === "fulfilled") merge(devices, answer.value.get(userid) ?? []);
      merge(devices, lastSeen.unwritten(userid));
      merge(devices, this.heard(userid));
      if (devices.length > 0) users.set(userid, devices);
    }
    return users;
  }
}

async function late(): Promise<never> {
  await Bun.sleep(LOAD_MS);
  throw unavailable("presence cannot be read, try again");
}

function merge(devices: Device[], news: Iterable<Device>): void {
  for (const device of news) mergeInto(devices, device, DEVICES_MAX);
}
