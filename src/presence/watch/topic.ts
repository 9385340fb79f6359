import { type Clock } from "../../platform/clock.ts";
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
} from "../device.ts";
import { type EventIds } from "./event-id.ts";
import { type PresenceEvent } from "./event.ts";
import { type Subscriber } from "./subscriber.ts";

/** `aliveUntil` is on the clock that only grows: other processes' clocks and jumps of ours do not matter. */
type LiveDevice = Device & { aliveUntil: number };
/** With the id of the change, in epoch microseconds; `clientid` is the device that changed. */
export type LiveView = View & { us: number };

/** What all topics of a process share. */
export type Timing = { clock: Clock; ids: EventIds; ttlMs: number };

/** What brings a change: a device's ping, one that everybody may see, or its bye. */
export type Cause = { clientid: string; isPing: boolean; isSeen: boolean };

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
  /** How many are about to watch it. */
  pins = 0;
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

  /** A ping is always told; a bye, or without a cause an expiry, only if it changes what is seen. */
  update(timing: Timing, cause?: Cause): Change {
    const nowMs = timing.clock.elapsedMs();
    const change: Change = { public: undefined, own: undefined };
    const open = this.#publicView(nowMs);
    if (open !== undefined && (cause?.isSeen === true || differs(open, this.#public))) {
      const clientid = this.#publicCause(cause) ?? this.#lastExpired(nowMs, isVisible);
      this.#public = advance(this.#public, { ...open, clientid }, timing);
      change.public = this.#public;
    }
    const own = this.#ownView(nowMs);
    if (own !== undefined && (cause?.isPing === true || differs(own, this.#own))) {
      const clientid = cause?.clientid ?? this.#lastExpired(nowMs, () => true);
      // Mostly the same to both: one event, one id.
      const isShared = change.public?.at === own.at && !differs(change.public, own);
      this.#own = isShared ? change.public : advance(this.#own, { ...own, clientid }, timing);
      change.own = this.#own;
    }
    return change;
  }

  /** A device that has long been hidden is not told of, whatever it does when others expire. */
  #publicCause(cause: Cause | undefined): string | undefined {
    if (cause === undefined || cause.isSeen) return cause?.clientid;
    const device = this.#devices.find(({ clientid }) => clientid === cause.clientid);
    return device !== undefined && device.seenAt > 0 ? device.clientid : undefined;
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

function isVisible({ status }: Device): boolean {
  return status !== INVISIBLE;
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
