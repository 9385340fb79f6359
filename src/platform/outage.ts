import { setTimeout } from "node:timers/promises";
import type postgres from "postgres";

import { unavailable } from "./errors.ts";
import { type Log } from "./log.ts";
import { isFarewell, isRefusal } from "./postgres-errors.ts";

const PROBE_MS = 500;
const ASK_MS = 50;
const ASK_TRIES = 20;
// By then whoever was refused has the answer.
const DROP_MS = 20;

export type OutageDeps = {
  /** Closes all connections, and looks for the server anew. */
  drop: () => void;
  log: Log | undefined;
};

/** PostgreSQL takes no writes here. The code is the server's own for that. */
class ReadOnly extends Error {
  override readonly name = "ReadOnly";
  readonly code = "25006";
}

/**
 * Knows when the server is there but refuses the work, which no waiting of a request will change: then new ones are refused at once.
 * Connections are dropped, again and again, because another server may take over behind the same name.
 */
export class Outage {
  readonly #deps: OutageDeps;
  #sql: postgres.Sql<{ bigint: bigint }> | undefined;
  #reason: unknown;
  /** when connections were last dropped, or infinity until they are */
  #droppedMs = 0;
  #isAsking = false;

  constructor(deps: OutageDeps) {
    this.#deps = deps;
  }

  /** The pool that it is about. */
  watch(sql: postgres.Sql<{ bigint: bigint }>): void {
    this.#sql = sql;
  }

  get isKnown(): boolean {
    return this.#reason !== undefined;
  }

  /** Throws 503 while nothing can be written. */
  check(): void {
    if (this.isKnown)
      throw unavailable("the database takes nothing at the moment, send it again", 2, {
        cause: this.#reason,
        reason: "database",
      });
  }

  /** To be told of every error of the server. */
  refused(error: unknown): void {
    if (this.isKnown) return;
    if (isFarewell(error)) void this.#ask();
    if (!isRefusal(error)) return;
    this.#reason = error;
    this.#droppedMs = Number.POSITIVE_INFINITY;
    this.#deps.log?.error({ err: error }, "PostgreSQL refuses the work: connections are made anew");
    void this.#waitForEnd();
  }

  /** The server's time in epoch ms. Throws when it does not answer, or takes no writes. */
  async ping(): Promise<number> {
    if (this.#sql === undefined) throw new Error("no pool is watched");
    const startedMs = performance.now();
    const [row] = await this.#sql<[{ ms: number; readOnly: boolean }]>`
      select (extract(epoch from clock_timestamp()) * 1000)::float8 as ms, current_setting('transaction_read_only') = 'on' as "readOnly"`;
    if (!row.readOnly) {
      // What a connection of before says tells nothing.
      if (startedMs > this.#droppedMs) this.#end();
      return row.ms;
    }
    const error = new ReadOnly("PostgreSQL is read-only");
    this.refused(error);
    throw error;
  }

  /** Finds out whether the server that said farewell is followed by one that takes the work. */
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
        // Nobody uses the pool any more.
        if (error instanceof Error && "code" in error && error.code === "CONNECTION_ENDED") return;
      }
    }
  }

  #end(): void {
    if (!this.isKnown) return;
    this.#reason = undefined;
    this.#deps.log?.info("PostgreSQL takes the work again");
  }
}
