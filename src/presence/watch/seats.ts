import { type PresenceBounds } from "../../platform/config/bounds.ts";
import { limited } from "../../platform/errors.ts";
import { type Metrics } from "../../platform/telemetry/metrics.ts";
import { type Caller } from "../caller.ts";

// Long enough for the server to notice lost connections, and short for a user who waits.
const RETRY_AFTER_S = 5;

/** A connection's share of the process's limits, until it leaves. */
export interface Seat {
  /** Network of the client; undefined if many clients may share its address. */
  readonly network: string | undefined;
  /** Throws 429 if the connection's user, or all connections together, watch too many users. */
  watch(users: number): void;
  unwatch(users: number): void;
  /** Releases the seat; may be called repeatedly. */
  leave(): void;
}

/**
 * Counts the connections of this process and the users that they watch: in total, per user and per
 * client network.
 */
export class Seats {
  readonly #bounds: PresenceBounds;
  readonly #metrics: Pick<Metrics, "limited">;
  readonly #ofUser = new Tally();
  readonly #ofNetwork = new Tally();
  readonly #watchedByUser = new Tally();
  #connections = 0;
  #watched = 0;

  constructor(bounds: PresenceBounds, metrics: Pick<Metrics, "limited">) {
    this.#bounds = bounds;
    this.#metrics = metrics;
  }

  /**
   * Throws 429 if there are too many connections. A caller without a user id has no limit per user:
   * a trusted proxy has let it pass.
   */
  take({ userid }: Caller, network: string | undefined): Seat {
    const { connections, connectionsOfAddress, connectionsOfUser } = this.#bounds;
    if (isFull(this.#ofUser.of(userid), 1, connectionsOfUser))
      throw this.#refusal("presence_connections_user", "connections of this user");
    if (isFull(this.#ofNetwork.of(network), 1, connectionsOfAddress))
      throw this.#refusal("presence_connections_address", "connections of this address");
    if (isFull(this.#connections, 1, connections))
      throw this.#refusal("presence_connections", "connections");
    this.#count(userid, network, 1);
    let watched = 0;
    let isTaken = true;
    return {
      network,
      watch: (users) => {
        this.#watch(userid, users);
        watched += users;
      },
      unwatch: (users) => {
        this.#unwatch(userid, users);
        watched -= users;
      },
      leave: () => {
        if (!isTaken) return;
        isTaken = false;
        this.#count(userid, network, -1);
        this.#unwatch(userid, watched);
      },
    };
  }

  #count(userid: string | undefined, network: string | undefined, step: 1 | -1): void {
    this.#connections += step;
    this.#ofUser.add(userid, step);
    this.#ofNetwork.add(network, step);
  }

  #watch(userid: string | undefined, users: number): void {
    const { watched, watchedByUser } = this.#bounds;
    if (isFull(this.#watchedByUser.of(userid), users, watchedByUser))
      throw this.#refusal("presence_watched_user", "users are watched by this user");
    if (isFull(this.#watched, users, watched))
      throw this.#refusal("presence_watched", "users are watched");
    this.#watched += users;
    this.#watchedByUser.add(userid, users);
  }

  #unwatch(userid: string | undefined, users: number): void {
    this.#watched -= users;
    this.#watchedByUser.add(userid, -users);
  }

  #refusal(limit: string, what: string) {
    this.#metrics.limited.inc({ limit });
    return limited(`too many ${what}, try again later`, RETRY_AFTER_S);
  }
}

/** Counters by key; zero counters are removed, and an undefined key is not counted. */
class Tally {
  readonly #byKey = new Map<string, number>();

  of(key: string | undefined): number {
    return key === undefined ? 0 : (this.#byKey.get(key) ?? 0);
  }

  add(key: string | undefined, number: number): void {
    if (key === undefined) return;
    const sum = this.of(key) + number;
    if (sum > 0) this.#byKey.set(key, sum);
    else this.#byKey.delete(key);
  }
}

function isFull(present: number, more: number, max: number | undefined): boolean {
  return max !== undefined && present + more > max;
}
