import { randomInt } from "node:crypto";
import { setTimeout } from "node:timers/promises";

import { type Sql } from "../platform/database/database.ts";
import { unavailable } from "../platform/errors.ts";
import { type Service } from "../platform/lifecycle.ts";
import { doneWithin } from "../platform/time-limit.ts";
import { type Log } from "../platform/logger.ts";
import { warnRarely } from "../platform/rare-warnings.ts";

const LEASE_S = 60;
// Short, because a database that was emptied or restored must soon know again which ids are in use.
const RENEW_MS = 2000;
// Well before the lease ends by the database's clock, so that no other process can have the id
// while this one uses it.
const USABLE_MS = 40_000;
const NUMBERS = 65_536;
const TRIES_MAX = 1000;
const GIVE_BACK_MS = 500;

/**
 * Leases a 16-bit worker id for session ids from the database, so that no other process has it. Ids
 * are drawn at random: a counter in a database that was emptied or restored would reach ids again
 * that are in use.
 */
export class WorkerIdLease implements Service {
  readonly #sql: Sql;
  readonly #log: Log;
  readonly #holder = crypto.randomUUID();
  #number = randomInt(NUMBERS);
  #renewedMs = Number.NEGATIVE_INFINITY;
  #isUnused = true;
  #keeping: Promise<void> | undefined;

  constructor(sql: Sql, log: Log) {
    this.#sql = sql;
    this.#log = log;
  }

  /** Leases an id, and renews the lease until the signal. */
  async start(signal: AbortSignal): Promise<void> {
    const leasing = this.#renew();
    this.#keeping = leasing.then(async () => await this.#keep(signal)).catch(() => undefined);
    await leasing;
  }

  /**
   * Gives back an id that was never used. The lease of any other runs out by itself, because the
   * clock of the next process that gets the id may be behind this one's.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    const giveBack = async () => {
      await this.#keeping;
      await this.#sql`delete from session_worker_leases where holder = ${this.#holder}`;
    };
    if (this.#isUnused && this.#keeping !== undefined)
      await doneWithin(GIVE_BACK_MS, giveBack()).catch(() => undefined);
  }

  /** Returns the worker id, 0 to 65,535. Throws 503 if the lease was not renewed in time. */
  get current(): number {
    if (performance.now() - this.#renewedMs > USABLE_MS)
      throw unavailable("no session can be started while the database is away", 5, {
        reason: "database",
      });
    this.#isUnused = false;
    return this.#number;
  }

  /** Renews the lease until the signal, then rejects. */
  async #keep(signal: AbortSignal): Promise<never> {
    for (;;) {
      await setTimeout(RENEW_MS, undefined, { signal });
      await this.#renew().catch((error: unknown) =>
        warnRarely(this.#log, { err: error }, "the lease of the worker id was not renewed"),
      );
    }
  }

  /**
   * Leases the same id again, even if the database lost it; another one if a process has taken it.
   */
  async #renew(): Promise<void> {
    const sql = this.#sql;
    let number = this.#number;
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      const askedMs = performance.now();
      const [held] = await sql`
        insert into session_worker_leases as lease (number, holder, leased_until, archive_reader)
        values (${number}, ${this.#holder}, now() + ${LEASE_S} * interval '1 second', ${this.#holder})
        on conflict (number) do update set
          holder = excluded.holder, leased_until = excluded.leased_until, archive_reader = excluded.archive_reader
        where lease.holder = excluded.holder or lease.leased_until < now() returning 1`;
      if (held !== undefined) {
        this.#number = number;
        this.#renewedMs = askedMs;
        return;
      }
      this.#renewedMs = Number.NEGATIVE_INFINITY;
      number = randomInt(NUMBERS);
    }
    throw new Error("no worker id is free");
  }
}
