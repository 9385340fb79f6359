import { type PresenceBounds } from "../platform/bounds.ts";
import { limited } from "../platform/errors.ts";
import { type Metrics } from "../platform/metrics.ts";
import { type Caller } from "./caller.ts";

// Long enough for connections that were lost to be noticed, and short for somebody who waits.
const RETRY_AFTER_S = 5;

/** What one connection takes of the process's bounds, until it leaves. */
export interface Seat {
  /** The client's network; undefined where its address may stand for many clients. */
  readonly network: string | undefined;
  /** Throws 429 when the connection's user or all together watch too many users already. */
  watch(users: number): void;
  unwatch(users: number): void;
  /** May be called again. */
  leave(): void;
}

/** How many connections this process holds, and how many users they watch: in all, of one user and of one client network. */
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

  /** Throws 429 when there are too many connections. Who is nobody has no bound of one user: a trusted proxy has let them pass. */
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

/** Numbers by key; what is nothing has no entry, and what has no key is not counted. */
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
