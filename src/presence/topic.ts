import { type Clock } from "../platform/clock.ts";
import {
  type Device,
  type View,
  DEVICES_MAX,
  INVISIBLE,
  makeRoom,
  merge,
  ownChangeAt,
  ownView,
  publicChangeAt,
  publicView,
} from "./device.ts";
import { type EventIds, type Since } from "./event-id.ts";
import { type PresenceEvent } from "./event.ts";
import { type Subscriber } from "./subscriber.ts";

/** `aliveUntil` is on the clock that only grows: other processes' clocks and jumps of ours do not matter. */
type LiveDevice = Device & { aliveUntil: number };
/** With the id of the change, in epoch microseconds; `clientid` is the device that changed. */
export type LiveView = View & { us: number };

/** What all topics of a process share. */
export type Timing = { clock: Clock; ids: EventIds; ttlMs: number };

/** What a change looks like to everybody, and to the user's own devices. */
export type Change = { public: LiveView | undefined; own: LiveView | undefined };

/** One watched user, on this process. */
export class Topic {
  readonly userid: string;
  readonly subscribers = new Set<Subscriber>();
  /** Who came before the devices were read; undefined when they are. */
  waiting: { subscriber: Subscriber; since: Since | undefined }[] | undefined = [];
  /** From this event id on every change was seen here. */
  knownFrom = 0;
  /** When the expiry looks at it. */
  dueMs = Number.POSITIVE_INFINITY;
  #devices: LiveDevice[] = [];
  #public: LiveView | undefined;
  #own: LiveView | undefined;

  constructor(userid: string) {
    this.userid = userid;
  }

  get devices(): readonly LiveDevice[] {
    return this.#devices;
  }

  /** Everybody sees the public view, the user's own devices see the invisible ones, too. */
  viewFor(userid: string | undefined): LiveView | undefined {
    return userid === this.userid ? this.#own : this.#public;
  }

  /** True when that was news. `aliveUntil` holds if the newest ping is in it. */
  merge(news: Device, aliveUntil: number): boolean {
    const known = this.#devices.find(({ clientid }) => clientid === news.clientid);
    if (known !== undefined) {
      if (news.pingAt > known.pingAt) known.aliveUntil = aliveUntil;
      return merge(known, news);
    }
    makeRoom(this.#devices, DEVICES_MAX).push({ ...news, aliveUntil });
    return true;
  }

  /** When the first of the devices that are alive expires; undefined when none is. */
  nextExpiryMs(nowMs: number): number | undefined {
    let next: number | undefined;
    for (const { aliveUntil, gone } of this.#devices)
      if (!gone && aliveUntil > nowMs && (next === undefined || aliveUntil < next))
        next = aliveUntil;
    return next;
  }

  /** Whether something expired that changes what is seen. */
  isLate(nowMs: number): boolean {
    const isAlive = aliveAt(nowMs);
    return (
      differs(publicView(this.#devices, isAlive), this.#public) ||
      differs(ownView(this.#devices, isAlive), this.#own)
    );
  }

  /** The device that expired last. */
  lastExpired(nowMs: number): LiveDevice | undefined {
    return this.#devices
      .filter(({ aliveUntil }) => aliveUntil <= nowMs)
      .toSorted((a, b) => b.aliveUntil - a.aliveUntil)[0];
  }

  /** The views of devices that were read from the stores, with ids that any process would give them. */
  derive({ clock, ids, ttlMs }: Timing): void {
    const isAlive = aliveAt(clock.elapsedMs());
    const open = publicView(this.#devices, isAlive);
    const own = ownView(this.#devices, isAlive);
    this.#public = open && {
      ...open,
      us: ids.observe(publicChangeAt(this.#devices, isAlive, ttlMs)),
    };
    this.#own = own && { ...own, us: ids.observe(ownChangeAt(this.#devices, isAlive, ttlMs)) };
  }

  /** The events that a ping of a device brings; of a bye or an expiry (status null) only if it changed what is seen. */
  update(clientid: string, status: string | null, timing: Timing): Change {
    const isAlive = aliveAt(timing.clock.elapsedMs());
    const open = publicView(this.#devices, isAlive);
    const own = ownView(this.#devices, isAlive);
    const isSeen = status !== null && status !== INVISIBLE;
    const change: Change = { public: undefined, own: undefined };
    if (open !== undefined && (isSeen || differs(open, this.#public))) {
      this.#public = advance(this.#public, open, clientid, timing);
      change.public = this.#public;
    }
    if (own !== undefined && (status !== null || differs(own, this.#own))) {
      // Mostly the same to both: one event, one id.
      const isShared = change.public !== undefined && !differs(own, this.#public);
      this.#own =
        isShared && this.#public?.at === own.at
          ? this.#public
          : advance(this.#own, own, clientid, timing);
      change.own = this.#own;
    }
    return change;
  }

  event({ at, status, online, clientid, us }: LiveView, ids: EventIds): PresenceEvent {
    return {
      userid: this.userid,
      time: Math.floor(at / 1000),
      status,
      online,
      clientid,
      id: ids.text(us),
    };
  }
}

function aliveAt(nowMs: number): (device: LiveDevice) => boolean {
  return ({ aliveUntil }) => aliveUntil > nowMs;
}

function differs(a: View | undefined, b: View | undefined): boolean {
  return a?.online !== b?.online || a?.status !== b?.status;
}

/** A user's time never goes backwards, whatever devices come and go. */
function advance(
  before: LiveView | undefined,
  view: View,
  clientid: string,
  { clock, ids }: Timing,
): LiveView {
  const at = Math.max(view.at, before?.at ?? 0);
  return { ...view, at, clientid, us: ids.next(view.online ? at : clock.epochMs()) };
}
