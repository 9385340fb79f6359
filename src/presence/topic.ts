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
import { type EventIds } from "./event-id.ts";
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
  /** While the devices are read for the first time; undefined once they are. */
  reading: Promise<void> | undefined;
  /** The number of the read that it is known from: later changes were all seen here. */
  read = 0;
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
    return (
      differs(this.#publicView(nowMs), this.#public) || differs(this.#ownView(nowMs), this.#own)
    );
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

  /** The events that a ping of a device brings; a bye (status null) or an expiry (no device) only if it changed what is seen. */
  update(timing: Timing, clientid?: string, status: string | null = null): Change {
    const nowMs = timing.clock.elapsedMs();
    const open = this.#publicView(nowMs);
    const own = this.#ownView(nowMs);
    const isSeen = status !== null && status !== INVISIBLE;
    const change: Change = { public: undefined, own: undefined };
    if (open !== undefined && (isSeen || differs(open, this.#public))) {
      const changed =
        clientid ?? this.#lastExpired(nowMs, ({ status: last }) => last !== INVISIBLE);
      this.#public = advance(this.#public, { ...open, clientid: changed }, timing);
      change.public = this.#public;
    }
    if (own !== undefined && (status !== null || differs(own, this.#own))) {
      // Mostly the same to both: one event, one id.
      const isShared = change.public !== undefined && !differs(own, this.#public);
      this.#own =
        isShared && this.#public?.at === own.at
          ? this.#public
          : advance(
              this.#own,
              { ...own, clientid: clientid ?? this.#lastExpired(nowMs, () => true) },
              timing,
            );
      change.own = this.#own;
    }
    return change;
  }

  #lastExpired(nowMs: number, counts: (device: LiveDevice) => boolean): string {
    let last: LiveDevice | undefined;
    for (const device of this.#devices)
      if (device.aliveUntil <= nowMs && counts(device))
        if (last === undefined || device.aliveUntil > last.aliveUntil) last = device;
    return last?.clientid ?? "";
  }

  #publicView(nowMs: number): View | undefined {
    return publicView(this.#devices, aliveAt(nowMs)) ?? offline(this.#public);
  }

  #ownView(nowMs: number): View | undefined {
    return ownView(this.#devices, aliveAt(nowMs)) ?? offline(this.#own);
  }

  event({ at, status, online, clientid, us }: LiveView, ids: EventIds): PresenceEvent {
    return {
      userid: this.userid,
      time: Math.floor(at / 1000),
      status,
      online,
      clientid,
      id: ids.text(us, this.userid),
    };
  }
}

/** Of a user whose devices were forgotten. */
function offline(view: LiveView | undefined): View | undefined {
  return view && { ...view, online: false };
}

function aliveAt(nowMs: number): (device: LiveDevice) => boolean {
  return ({ aliveUntil }) => aliveUntil > nowMs;
}

function differs(a: View | undefined, b: View | undefined): boolean {
  return a?.online !== b?.online || a?.status !== b?.status;
}

/** A user's time never goes backwards, whatever devices come and go. */
function advance(before: LiveView | undefined, view: View, { clock, ids }: Timing): LiveView {
  const at = Math.max(view.at, before?.at ?? 0);
  return { ...view, at, us: ids.next(view.online ? at : clock.epochMs()) };
}
