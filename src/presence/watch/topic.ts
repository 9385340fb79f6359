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

/**
 * `aliveUntil` is on the monotonic clock, so that jumps of any process's wall clock do not matter.
 */
type LiveDevice = Device & { aliveUntil: number };
/** View with the id of its change, in epoch microseconds; `clientid` is the device that changed. */
export type LiveView = View & { us: number };

/** Dependencies that all topics of a process share. */
export type Timing = { clock: Clock; ids: EventIds; ttlMs: number };

/** Cause of a change: a device's ping, with `isSeen` if everybody may see it, or its bye. */
export type Cause = { clientid: string; isPing: boolean; isSeen: boolean };

/** A change as everybody sees it, and as the user's own devices do. */
export type Change = { public: LiveView | undefined; own: LiveView | undefined };

/** A user whom subscribers of this process watch. */
export class Topic {
  readonly userid: string;
  readonly subscribers = new Set<Subscriber>();
  /** Settles when the devices have been read for the first time; then undefined. */
  reading: Promise<void> | undefined;
  /** Number of the read that loaded the topic; this process has seen all later changes. */
  read = 0;
  /** Number of callers that are about to watch the topic. */
  pins = 0;
  /** Time at which `Expiry` checks the topic. */
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

  /** Returns the public view, or for the user's own devices the one with invisible devices. */
  viewFor(userid: string | undefined): LiveView | undefined {
    return userid === this.userid ? this.#own : this.#public;
  }

  /** Returns whether anything changed. `aliveUntil` applies if the news have the newest ping. */
  merge(news: Device, aliveUntil: number): boolean {
    const known = this.#devices.find(({ clientid }) => clientid === news.clientid);
    if (known !== undefined) {
      if (news.pingAt > known.pingAt) known.aliveUntil = aliveUntil;
      return merge(known, news);
    }
    makeRoom(this.#devices, DEVICES_MAX).push({ ...news, aliveUntil });
    return true;
  }

  /** Returns when the next online device expires; undefined if none is online. */
  nextExpiryMs(nowMs: number): number | undefined {
    let next: number | undefined;
    for (const { aliveUntil, gone } of this.#devices)
      if (!gone && aliveUntil > nowMs && (next === undefined || aliveUntil < next))
        next = aliveUntil;
    return next;
  }

  /** Returns whether something has expired that changes what is seen. */
  isLate(nowMs: number): boolean {
    return (
      differs(this.#publicView(nowMs), this.#public) || differs(this.#ownView(nowMs), this.#own)
    );
  }

  /** Sets the views by the devices that the stores have, with ids that any process would use. */
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

  /**
   * Returns the change to deliver: always for a ping; for a bye, or an expiry (without a cause),
   * only if it changes what is seen.
   */
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
      // Both views are usually the same and then share one event and id.
      const isShared = change.public?.at === own.at && !differs(change.public, own);
      this.#own = isShared ? change.public : advance(this.#own, { ...own, clientid }, timing);
      change.own = this.#own;
    }
    return change;
  }

  /**
   * Returns the device to name in public; undefined if it was never visible and must stay unknown.
   */
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

/** Returns the view of a user whose devices were forgotten. */
function offline(view: LiveView | undefined): View | undefined {
  return view && { ...view, online: false };
}

function aliveAt(nowMs: number): (device: LiveDevice) => boolean {
  return ({ aliveUntil }) => aliveUntil > nowMs;
}

function differs(a: View | undefined, b: View | undefined): boolean {
  return a?.online !== b?.online || a?.status !== b?.status;
}

/** Gives the view a new id, and a time that is never before the user's last one. */
function advance(before: LiveView | undefined, view: View, { clock, ids }: Timing): LiveView {
  const at = Math.max(view.at, before?.at ?? 0);
  return { ...view, at, us: ids.next(view.online ? at : clock.epochMs()) };
}
