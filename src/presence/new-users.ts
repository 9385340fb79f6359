import { type RowLimit } from "../platform/http/rate-limits.ts";

// Users remembered per generation, as 53-bit hashes; there are up to two generations.
const KNOWN_MAX = 250_000;

export type NewUsersDeps = {
  limit: RowLimit;
  /** Returns whether the user is known to any store. */
  isKnown: (userid: string) => Promise<boolean>;
};

/**
 * Limits how many new users are stored. Every user is new to a process once: their first pings
 * count, and over the limit the stores are asked, so that known users always pass.
 */
export class NewUsers {
  readonly #deps: NewUsersDeps;
  #known = new Set<number>();
  #before = new Set<number>();

  constructor(deps: NewUsersDeps) {
    this.#deps = deps;
  }

  /**
   * Returns undefined if the user may pass at once. Rejects with 429 for a new user over the limit.
   */
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
