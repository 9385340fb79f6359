import { setTimeout } from "node:timers/promises";
import type postgres from "postgres";

import { codeOf, unavailable } from "../errors.ts";
import { type Log } from "../logger.ts";
import { isFarewell, isRefusal } from "./postgres-errors.ts";

const PROBE_MS = 500;
const ASK_MS = 50;
const ASK_TRIES = 20;
// Delay before connections are dropped, so that refused statements get their answers first.
const DROP_MS = 20;

export type OutageDeps = {
  /** Closes all connections, and makes the next one look for the server again. */
  drop: () => void;
  log: Log | undefined;
};

/** Error for a read-only PostgreSQL, with the error code that the server itself uses. */
class ReadOnly extends Error {
  override readonly name = "ReadOnly";
  readonly code = "25006";
}

/**
 * Circuit breaker for a server that is reachable but refuses the work: waiting does not help, so
 * new requests are refused at once. Keeps dropping connections, because another server may take
 * over under the same name.
 */
export class Outage {
  readonly #deps: OutageDeps;
  #sql: postgres.Sql<{ bigint: bigint }> | undefined;
  #reason: unknown;
  /** Time when connections were last dropped; infinity from the refusal until they are. */
  #droppedMs = 0;
  #isAsking = false;

  constructor(deps: OutageDeps) {
    this.#deps = deps;
  }

  /** Sets the pool to watch. */
  watch(sql: postgres.Sql<{ bigint: bigint }>): void {
    this.#sql = sql;
  }

  get isKnown(): boolean {
    return this.#reason !== undefined;
  }

  /** Throws 503 while the server refuses work. */
  check(): void {
    if (this.isKnown)
      throw unavailable("the database is not available at the moment, send it again", 2, {
        cause: this.#reason,
        reason: "database",
      });
  }

  /** Takes note of an error; must be called with every error of the server. */
  refused(error: unknown): void {
    if (this.isKnown) return;
    if (isFarewell(error)) void this.#ask();
    if (!isRefusal(error)) return;
    this.#reason = error;
    this.#droppedMs = Number.POSITIVE_INFINITY;
    this.#deps.log?.error({ err: error }, "PostgreSQL refuses work: reconnecting");
    void this.#waitForEnd();
  }

  /** Returns the server's time in epoch ms. Throws if it does not answer, or is read-only. */
  async ping(): Promise<number> {
    if (this.#sql === undefined) throw new Error("no pool is watched");
    const startedMs = performance.now();
    const [row] = await this.#sql<[{ ms: number; readOnly: boolean }]>`
      select (extract(epoch from clock_timestamp()) * 1000)::float8 as ms, current_setting('transaction_read_only') = 'on' as "readOnly"`;
    if (!row.readOnly) {
      // Ignore answers over connections from before the drop.
      if (startedMs > this.#droppedMs) this.#end();
      return row.ms;
    }
    const error = new ReadOnly("PostgreSQL is read-only");
    this.refused(error);
    throw error;
  }

  /**
   * After a server has announced its shutdown, finds out whether its successor accepts the work.
   */
  async #ask(): Promise<void> {
    if (this.#isAsking) return;
    this.#isAsking = true;
    for (let tries = 0; tries < ASK_TRIES && !this.isKnown; tries++) {
      await setTimeout(ASK_MS, undefined, { ref: false });
      const isTaken = await this.ping().then(
        () => true,
        () => false,
      );
      if (isTaken) break;
    }
    this.#isAsking = false;
  }

  async #waitForEnd(): Promise<void> {
    await setTimeout(DROP_MS, undefined, { ref: false });
    while (this.isKnown) {
      this.#deps.drop();
      this.#droppedMs = performance.now();
      await setTimeout(PROBE_MS, undefined, { ref: false });
      try {
        await this.ping();
      } catch (error) {
        // The pool was closed.
        if (codeOf(error) === "CONNECTION_ENDED") return;
      }
    }
  }

  #end(): void {
    if (!this.isKnown) return;
    this.#reason = undefined;
    this.#deps.log?.info("PostgreSQL accepts work again");
  }
}
