import { type Caller } from "../caller.ts";
import { type Bundle } from "./event.ts";
import { type Hub } from "./hub.ts";
import { type Seat } from "./seats.ts";
import { type Topic } from "./topic.ts";

const BACKLOG_BYTES_MAX = 64 * 1024;
// Size of an event without its texts: keys, numbers and the id.
const EVENT_BYTES = 130;
const STALLED_MS = 60_000;

export type DropReason = "slow" | "stalled" | "frames" | "expired";

/**
 * A connection that watches users. While it does not read, at most one event of each user waits for
 * it: the newest.
 */
export abstract class Subscriber {
  readonly caller: Caller;
  readonly topics = new Set<Topic>();
  protected readonly hub: Hub;
  readonly seat: Seat;
  #held: Set<Topic> | undefined;
  #heldBytes = 0;
  #heldSinceMs = 0;

  constructor(hub: Hub, caller: Caller, seat: Seat) {
    this.hub = hub;
    this.caller = caller;
    this.seat = seat;
  }

  /** Sends events of these topics; while the connection is blocked, holds the topics back. */
  deliver(bundle: Bundle, topics: readonly Topic[]): void {
    // New events must not overtake held ones: the ids of a stream ascend.
    if (!this.isBlocked && this.#held === undefined) this.send(bundle);
    else for (const topic of topics) this.#hold(topic);
  }

  /** Must be called when the connection takes bytes again. */
  protected release(): void {
    const held = this.#held;
    if (held === undefined || this.isBlocked) return;
    this.#held = undefined;
    this.#heldBytes = 0;
    this.send(this.hub.state(this, held.intersection(this.topics)));
  }

  /** Ends a connection that does not read at all, or whose token has expired. */
  check(nowMs: number, epochMs: number): void {
    if (this.#held !== undefined && nowMs - this.#heldSinceMs > STALLED_MS) this.drop("stalled");
    else if (this.caller.expiresAt !== undefined && this.caller.expiresAt <= epochMs)
      this.drop("expired");
  }

  /** True while sent bytes would wait in this process. */
  abstract readonly isBlocked: boolean;
  protected abstract send(bundle: Bundle): void;
  /** Tells the client that its last event is too old to resume from. */
  abstract reset(id: string): void;
  /** Sends something, so that proxies do not close a quiet connection. */
  abstract keepAlive(): void;
  abstract drop(reason: DropReason): void;
  /** Closes the connection and asks the client to reconnect after `retryMs`: this process ends. */
  abstract disconnect(retryMs: number): void;

  #hold(topic: Topic): void {
    const view = topic.viewFor(this.caller.userid);
    if (view === undefined || this.#held?.has(topic) === true) return;
    if (this.#held === undefined) {
      this.#held = new Set();
      this.#heldSinceMs = this.hub.elapsedMs();
    }
    this.#held.add(topic);
    this.#heldBytes +=
      EVENT_BYTES + topic.userid.length + view.clientid.length + view.status.length;
    if (this.#heldBytes > BACKLOG_BYTES_MAX) this.drop("slow");
  }
}
