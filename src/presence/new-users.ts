import { type RowLimit } from "../platform/rate-limits.ts";

// Twice as many are known at most, by 53 bits of each.
const KNOWN_MAX = 250_000;

export type NewUsersDeps = {
  limit: RowLimit;
  /** Whether anything is known of the user anywhere. */
  isKnown: (userid: string) => Promise<boolean>;
};

/**
 * Bounds how many users who were never seen before are kept. To this process everybody is new once: their first pings count, and once
 * there are too many the stores are asked, so that known users always pass.
 */
export class NewUsers {
  readonly #deps: NewUsersDeps;
  #known = new Set<number>();
  #before = new Set<number>();

  constructor(deps: NewUsersDeps) {
    this.#deps = deps;
  }

  /** Undefined where nothing need be asked. Rejects with 429 for a new user when there are too many. */
  admit(userid: string, network: () => string | undefined): Promise<void> | undefined {
    if (this.#deps.limit.isOff) return undefined;
    const hash = Number(Bun.hash.wyhash(userid) & 0x1f_ffff_ffff_ffffn);
    if (this.#known.has(hash)) return undefined;
    if (this.#before.has(hash)) {
      this.#learn(hash);
      return undefined;
    }
    const refuse = this.#deps.limit.count(network());
    if (refuse === undefined) {
      this.#learn(hash);
      return undefined;
    }
    return this.#ask(userid, hash, refuse);
  }

  async #ask(userid: string, hash: number, refuse: () => Error): Promise<void> {
    if (!(await this.#deps.isKnown(userid))) throw refuse();
    this.#learn(hash);
  }

  #learn(hash: number): void {
    this.#known.add(hash);
    if (this.#known.size < KNOWN_MAX) return;
    this.#before = this.#known;
    this.#known = new Set();
  }
}
