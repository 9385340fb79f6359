import { type Bus } from "../platform/bus.ts";
import { type Clock } from "../platform/clock.ts";
import { type Log } from "../platform/log.ts";
import { type Metrics } from "../platform/metrics.ts";
import { type Caller } from "./caller.ts";
import { type Connections } from "./connections.ts";
import { type Device, type Ping, ownView, publicView } from "./device.ts";
import { parseEventId } from "./event-id.ts";
import { type Hub } from "./hub.ts";
import { type Claim } from "./schema.ts";
import { type DeviceStore } from "./store.ts";
import { type DropReason, type Subscriber } from "./subscriber.ts";

const TICK_MS = 250;
const SHARDS = 16;
const DEFAULT_STATUS = "0";

export type PresenceDeps = {
  hub: Hub;
  store: DeviceStore;
  connections: Connections;
  bus: Bus;
  clock: Clock;
  ttlMs: number;
  metrics: Metrics;
  log: Log;
};

/** What a snapshot tells of a user; `time` is epoch seconds. */
export type Snapshot = { time: number | null; status: string | null; online: boolean };

/** Who is there: takes pings, tells subscribers and other processes. */
export class Presence {
  readonly #deps: PresenceDeps;
  #newestMs = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(deps: PresenceDeps) {
    this.#deps = deps;
  }

  start(): void {
    const { bus, hub, store, connections, log } = this.#deps;
    for (let shard = 0; shard < SHARDS; shard++)
      bus.subscribe(`presence:${shard}`, {
        message: (message) => this.#hear(message),
        missed: () =>
          void hub
            .resync()
            .catch((error: unknown) => log.warn({ err: error }, "presence not synchronised")),
      });
    store.start();
    this.#timer = setInterval(() => {
      connections.tick();
      hub.tick().catch((error: unknown) => log.error({ err: error }, "presence tick failed"));
    }, TICK_MS);
  }

  /** Ends the connections: every client comes back at another moment, elsewhere. */
  sendAway(): void {
    this.#deps.connections.sendAway();
  }

  /** Writes what is not yet written. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#deps.store.stop();
  }

  /** A device is there; without a status it has the one that it had before. */
  async ping(claim: Claim, status: string | undefined): Promise<void> {
    this.#tell(claim, status ?? (await this.#statusOf(claim)));
  }

  /** A device leaves. */
  bye(claim: Claim): void {
    this.#tell(claim, null);
  }

  /** Users never seen are null. Throws when nothing can be read. */
  async snapshot(caller: Caller, userids: string[]): Promise<Record<string, Snapshot>> {
    const { hub, store, clock, ttlMs } = this.#deps;
    const unwatched = userids.filter((userid) => hub.find(userid) === undefined);
    const stored = unwatched.length === 0 ? undefined : await store.load(unwatched);
    const nowMs = clock.epochMs();
    const entries = userids.map((userid): [string, Snapshot] => {
      const viewOf = caller.userid === userid ? ownView : publicView;
      const view =
        hub.find(userid)?.viewFor(caller.userid) ??
        viewOf(stored?.get(userid) ?? [], ({ pingAt }) => pingAt + ttlMs > nowMs);
      if (view === undefined) return [userid, { time: null, status: null, online: false }];
      const { at, status, online } = view;
      return [userid, { time: Math.floor(at / 1000), status, online }];
    });
    return Object.fromEntries(entries);
  }

  /** Begins to watch; `lastEventId` is where the client was. */
  watch(subscriber: Subscriber, userids: Iterable<string>, lastEventId: string | undefined): void {
    const { hub, clock } = this.#deps;
    if (lastEventId === undefined) {
      hub.watch(subscriber, userids);
      return;
    }
    const since = parseEventId(lastEventId, clock.epochMs());
    if (since === undefined) subscriber.reset(hub.newId());
    hub.watch(subscriber, userids, since);
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
    metrics.presenceConnections.dec({ transport });
    if (reason !== undefined) metrics.presenceDropped.inc({ reason });
  }

  async #statusOf({ userid, clientid }: Claim): Promise<string> {
    const { hub, store } = this.#deps;
    const devices: Iterable<Device> =
      hub.find(userid)?.devices ?? (await store.load([userid])).get(userid) ?? [];
    const known = [...devices].find((device) => device.clientid === clientid);
    return known === undefined || known.pingAt === 0 ? DEFAULT_STATUS : known.status;
  }

  #tell({ userid, clientid }: Claim, status: string | null): void {
    const { hub, store, bus, metrics } = this.#deps;
    const ping = { userid, clientid, at: this.#timeOf(userid, clientid), status };
    store.record(ping);
    hub.take(ping);
    bus.publish(`presence:${shardOf(userid)}`, [userid, clientid, ping.at, status]);
    metrics.presencePings.inc();
  }

  /** Later than all that is known of the device, also when the clock was set back or another process's is ahead. */
  #timeOf(userid: string, clientid: string): number {
    const { clock, store } = this.#deps;
    let at = Math.max(clock.epochMs(), this.#newestMs + 0.001);
    for (const device of store.heard(userid))
      if (device.clientid === clientid) at = Math.max(at, device.changedAt + 0.001);
    this.#newestMs = at;
    return at;
  }

  #hear(message: unknown): void {
    const ping = pingOf(message);
    if (ping === undefined) {
      this.#deps.log.warn("presence message not understood");
      return;
    }
    this.#deps.store.hear(ping);
    this.#deps.hub.take(ping);
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
