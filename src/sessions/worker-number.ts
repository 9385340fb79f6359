import { randomInt } from "node:crypto";
import { setTimeout } from "node:timers/promises";

import { type Sql } from "../platform/database/database.ts";
import { unavailable } from "../platform/errors.ts";
import { type Log } from "../platform/logger.ts";
import { warnRarely } from "../platform/rare-warnings.ts";

const LEASE_S = 60;
// The database may be emptied or restored at any time: so soon it hears again who has which number.
const RENEW_MS = 2000;
// Well before the lease ends by the database's clock: nobody else can have the number while this process uses it.
const USABLE_MS = 40_000;
const NUMBERS = 65_536;
const TRIES_MAX = 1000;

/**
 * The 16 bits of session ids that no other process has, by a lease in the database. Numbers are drawn at random, not counted: a
 * database that was emptied or restored would count up to numbers again that are in use.
 */
export class WorkerNumber implements Disposable {
  readonly #sql: Sql;
  readonly #log: Log;
  readonly #holder = crypto.randomUUID();
  readonly #stopping = new AbortController();
  #number = randomInt(NUMBERS);
  #renewedMs = Number.NEGATIVE_INFINITY;

  private constructor(sql: Sql, log: Log) {
    this.#sql = sql;
    this.#log = log;
  }

  static async lease(sql: Sql, log: Log): Promise<WorkerNumber> {
    const worker = new WorkerNumber(sql, log);
    await worker.#renew();
    worker.#keep(worker.#stopping.signal).catch(() => undefined);
    return worker;
  }

  /** 0 to 65,535. Throws 503 while it cannot be known to be this process's alone. */
  get current(): number {
    if (performance.now() - this.#renewedMs > USABLE_MS)
      throw unavailable("no session can be started while the database is away", 5, {
        reason: "database",
      });
    return this.#number;
  }

  /** The lease runs out by itself. */
  [Symbol.dispose](): void {
    this.#stopping.abort();
  }

  /** Until the signal, which is a rejection. */
  async #keep(signal: AbortSignal): Promise<never> {
    for (;;) {
      await setTimeout(RENEW_MS, undefined, { signal });
      await this.#renew().catch((error: unknown) =>
        warnRarely(this.#log, { err: error }, "the worker number was not renewed"),
      );
    }
  }

  /** Leases the same number, whether the database still knows of it or not, and another one if somebody else has it. */
  async #renew(): Promise<void> {
    const sql = this.#sql;
    let number = this.#number;
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      const askedMs = performance.now();
      const [held] = await sql`
        insert into session_worker_leases as lease (number, holder, leased_until)
        values (${number}, ${this.#holder}, now() + ${LEASE_S} * interval '1 second')
        on conflict (number) do update set holder = excluded.holder, leased_until = excluded.leased_until
        where lease.holder = excluded.holder or lease.leased_until < now() returning 1`;
      if (held !== undefined) {
        this.#number = number;
        this.#renewedMs = askedMs;
        return;
      }
      this.#renewedMs = Number.NEGATIVE_INFINITY;
      number = randomInt(NUMBERS);
    }
    throw new Error("no worker number is free");
  }
}
