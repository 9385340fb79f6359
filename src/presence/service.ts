import { setTimeout } from "node:timers/promises";

import { type Bus } from "../platform/bus/bus.ts";
import { type Clock } from "../platform/clock.ts";
import { unavailable } from "../platform/errors.ts";
import { type Service, repeat } from "../platform/lifecycle.ts";
import { type Log } from "../platform/logger.ts";
import { warnRarely } from "../platform/rare-warnings.ts";
import { type Metrics } from "../platform/telemetry/metrics.ts";
import { type Caller } from "./caller.ts";
import { type Connections } from "./watch/connections.ts";
import { type Device, type Ping, ownView, publicView } from "./device.ts";
import { parseEventId } from "./watch/event-id.ts";
import { type Hub } from "./watch/hub.ts";
import { type NewUsers } from "./new-users.ts";
import { Poll } from "./watch/poll.ts";
import { type Claim } from "./schema.ts";
import { type DeviceStore } from "./store.ts";
import { type DropReason, type Subscriber } from "./watch/subscriber.ts";
import { type Topic } from "./watch/topic.ts";

const TICK_MS = 250;
const SHARDS = 16;
// Pings of every process reach PostgreSQL within this time while it is up.
const WRITTEN_MS = 2500;
// Ignores smaller corrections of the clock: if a ping looks outdated, the next one makes up for it.
const CLOCK_STEP_MS = 1000;
const READ_TRIES = 5;
const DEFAULT_STATUS = "0";

export type PresenceDeps = {
  hub: Hub;
  store: DeviceStore;
  newUsers: NewUsers;
  connections: Connections;
  bus: Bus;
  clock: Clock;
  ttlMs: number;
  metrics: Metrics;
  log: Log;
};

/** Returns the client's network; computed only when needed. */
type Network = () => string | undefined;

/** A user's state in a snapshot; `time` is epoch seconds. */
export type Snapshot = { time: number | null; status: string | null; online: boolean };

/** Takes pings, and tells subscribers and other processes who is online. */
export class Presence implements Service {
  readonly #deps: PresenceDeps;
  readonly #poll: Poll;
  readonly #uniqueClock = new UniqueClock();
  #latestMs = 0;

  constructor(deps: PresenceDeps) {
    this.#deps = deps;
    this.#poll = new Poll(deps);
  }

  start(signal: AbortSignal): void {
    const { bus, hub, store, connections, log } = this.#deps;
    bus.subscribe(
      Array.from({ length: SHARDS }, (_, shard) => `presence:${shard}`),
      { message: (message) => this.#hear(message), missed: () => this.#resync(signal) },
    );
    repeat(TICK_MS, signal, () => {
      connections.tick();
      store.tick();
      this.#poll.tick();
      hub.tick().catch((error: unknown) => log.error({ err: error }, "presence tick failed"));
    });
  }

  /**
   * Disconnects all clients with a random retry delay; returns how many are blocked and will not
   * see it.
   */
  disconnectAll(): number {
    return this.#deps.connections.disconnectAll();
  }

  /** Writes buffered pings. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#deps.store[Symbol.asyncDispose]();
  }

  /**
   * Records that a device is online; without a status it keeps its previous one, and the promise
   * resolves once that is found. Rejects with 429 for a new user over the limit.
   */
  ping(claim: Claim, status: string | undefined, network: Network): Promise<void> | undefined {
    const admitting = this.#deps.newUsers.admit(claim.userid, network);
    return admitting === undefined
      ? this.#ping(claim, status)
      : admitting.then(() => this.#ping(claim, status));
  }

  /** Records that a device goes offline. Rejects with 429 for a new user over the limit. */
  async bye(claim: Claim, network: Network): Promise<void> {
    await this.#deps.newUsers.admit(claim.userid, network);
    const { device } = this.#wasSetBack() ? await this.#stored(claim) : {};
    this.#tell(claim, null, device);
  }

  #ping(claim: Claim, status: string | undefined): Promise<void> | undefined {
    if (status === undefined || this.#wasSetBack()) return this.#pingStored(claim, status);
    this.#tell(claim, status);
    return undefined;
  }

  /** Returns the state of each user. Throws 503 if the stores cannot be read. */
  async snapshot(caller: Caller, userids: string[]): Promise<Record<string, Snapshot>> {
    const { hub, clock, ttlMs } = this.#deps;
    await this.#poll.refresh(userids);
    const unwatched = userids.filter((userid) => hub.find(userid) === undefined);
    const users = await this.#read(unwatched);
    const nowMs = clock.epochMs();
    const entries = userids.map((userid): [string, Snapshot] => {
      const viewOf = caller.userid === userid ? ownView : publicView;
      const view =
        hub.find(userid)?.viewFor(caller.userid) ??
        viewOf(users.get(userid) ?? [], ({ pingAt }) => pingAt + ttlMs > nowMs);
      if (view === undefined) return [userid, { time: null, status: null, online: false }];
      const { at, status, online } = view;
      return [userid, { time: Math.floor(at / 1000), status, online }];
    });
    return Object.fromEntries(entries);
  }

  /** Starts watching prepared topics; a client that resumes gives its `lastEventId`. */
  watch(subscriber: Subscriber, topics: Topic[], lastEventId: string | undefined): void {
    const { hub, clock } = this.#deps;
    const since =
      lastEventId === undefined ? undefined : parseEventId(lastEventId, clock.epochMs());
    if (lastEventId !== undefined && since === undefined) subscriber.reset(hub.newId());
    hub.watch(subscriber, topics, since);
  }

  opened(subscriber: Subscriber, transport: "sse" | "websocket"): void {
    const { connections, metrics } = this.#deps;
    connections.add(subscriber);
    metrics.presenceConnections.inc({ transport });
  }

  closed(
    subscriber: Subscriber,
    transport: "sse" | "websocket",
    reason: DropReason | undefined,
  ): void {
    const { hub, connections, metrics } = this.#deps;
    hub.leave(subscriber);
    connections.delete(subscriber);
    subscriber.seat.leave();
    metrics.presenceConnections.dec({ transport });
    if (reason !== undefined) metrics.presenceDropped.inc({ reason });
  }

  /**
   * Retries if the stores could not be read: otherwise the client would only ask again. Throws 503
   * if they still cannot.
   */
  async #read(userids: string[]): Promise<Map<string, Device[]>> {
    for (let tries = 0; tries < READ_TRIES; tries++) {
      const { users, isRead } = await this.#deps.store.load(userids);
      if (isRead || userids.every((userid) => users.has(userid))) return users;
    }
    throw unavailable("presence cannot be read, try again", 2, { reason: "database" });
  }

  async #pingStored(claim: Claim, status: string | undefined): Promise<void> {
    const { device, isRead } = await this.#stored(claim);
    // The default status could show a user who is invisible.
    if (status === undefined && device === undefined && !isRead)
      throw unavailable("the previous status is unknown, send one", 2, { reason: "database" });
    this.#tell(claim, status ?? (device?.pingAt ? device.status : DEFAULT_STATUS), device);
  }

  /**
   * Returns the device's known state; without `isRead` no store answered and it may be outdated.
   */
  async #stored({ userid, clientid }: Claim): Promise<{ device?: Device; isRead: boolean }> {
    const { hub, store } = this.#deps;
    const ofClient = (devices: readonly Device[] = []) =>
      devices.find((device) => device.clientid === clientid);
    await this.#poll.refresh([userid]);
    const watched = ofClient(hub.find(userid)?.devices);
    if (watched !== undefined) return { device: watched, isRead: true };
    const { users, isRead } = await store.load([userid]);
    const device = ofClient(users.get(userid));
    return { isRead, ...(device !== undefined && { device }) };
  }

  /** Returns whether the wall clock was set back, so that stored times may be later than now. */
  #wasSetBack(): boolean {
    const nowMs = this.#deps.clock.epochMs();
    this.#latestMs = Math.max(this.#latestMs, nowMs);
    return nowMs < this.#latestMs - CLOCK_STEP_MS;
  }

  #tell({ userid, clientid }: Claim, status: string | null, known?: Device): void {
    const { hub, store, bus, metrics } = this.#deps;
    const ping = { userid, clientid, at: this.#timeOf(userid, clientid, known), status };
    store.record(ping);
    hub.take(ping);
    bus.publish(`presence:${shardOf(userid)}`, [userid, clientid, ping.at, status]);
    metrics.presencePings.inc();
  }

  /**
   * Returns a time later than any known of the device, even if another process's clock is ahead.
   */
  #timeOf(userid: string, clientid: string, known: Device | undefined): number {
    const { clock, store, hub } = this.#deps;
    let at = this.#uniqueClock.next(clock.epochMs());
    const devices = [...store.heard(userid), ...(hub.find(userid)?.devices ?? [])];
    if (known !== undefined) devices.push(known);
    for (const device of devices)
      if (device.clientid === clientid) at = Math.max(at, device.changedAt + 0.001);
    return at;
  }

  /**
   * Reads all watched users again, twice: pings that other processes took while the bus was down
   * reach the database a little later.
   */
  #resync(signal: AbortSignal): void {
    const { hub, log } = this.#deps;
    for (const afterMs of [0, WRITTEN_MS])
      setTimeout(afterMs, undefined, { signal })
        .then(async () => await hub.resync())
        .catch((error: unknown) => {
          if (!signal.aborted) log.error({ err: error }, "presence not synchronised");
        });
  }

  #hear(message: unknown): void {
    const ping = pingOf(message);
    if (ping === undefined) {
      warnRarely(this.#deps.log, {}, "presence message not understood");
      return;
    }
    this.#deps.store.hear(ping);
    this.#deps.hub.take(ping);
  }
}

/** Gives pings of one millisecond different microseconds, because event ids are made of them. */
class UniqueClock {
  // Random, so that two processes rarely give the same time.
  readonly #first = Math.floor(Math.random() * 500);
  #ms = 0;
  #count = 0;

  next(ms: number): number {
    this.#count = ms === this.#ms ? this.#count + 1 : this.#first;
    this.#ms = ms;
    return ms + this.#count / 1000;
  }
}

function shardOf(userid: string): number {
  return Number(Bun.hash.wyhash(userid) % BigInt(SHARDS));
}

function pingOf(message: unknown): Ping | undefined {
  if (!Array.isArray(message)) return undefined;
  const [userid, clientid, at, status]: unknown[] = message;
  if (typeof userid !== "string" || typeof clientid !== "string" || typeof at !== "number")
    return undefined;
  if (typeof status !== "string" && status !== null) return undefined;
  return { userid, clientid, at, status };
}
