import { randomInt } from "node:crypto";
import { setTimeout } from "node:timers/promises";

import { type Sql } from "../platform/database/database.ts";
import { unavailable } from "../platform/errors.ts";
import { type Service, within } from "../platform/lifecycle.ts";
import { type Log } from "../platform/logger.ts";
import { warnRarely } from "../platform/rare-warnings.ts";

const LEASE_S = 60;
// The database may be emptied or restored at any time: so soon it hears again who has which number.
const RENEW_MS = 2000;
// Well before the lease ends by the database's clock: nobody else can have the number while this process uses it.
const USABLE_MS = 40_000;
const NUMBERS = 65_536;
const TRIES_MAX = 1000;
const GIVE_BACK_MS = 500;

/**
 * The 16 bits of session ids that no other process has, by a lease in the database. Numbers are drawn at random, not counted: a
 * database that was emptied or restored would count up to numbers again that are in use.
 */
export class WorkerNumber implements Service {
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

  /** Leases a number, and renews the lease until the signal. */
  async start(signal: AbortSignal): Promise<void> {
    const leasing = this.#renew();
    this.#keeping = leasing.then(async () => await this.#keep(signal)).catch(() => undefined);
    await leasing;
  }

  /**
   * Gives a number back that was never used. The lease of any other runs out by itself: the clock
   * of the next process that gets it may be behind this one's.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    const giveBack = async () => {
      await this.#keeping;
      await this.#sql`delete from session_worker_leases where holder = ${this.#holder}`;
    };
    if (this.#isUnused && this.#keeping !== undefined)
      await within(GIVE_BACK_MS, giveBack()).catch(() => undefined);
  }

  /** 0 to 65,535. Throws 503 while it cannot be known to be this process's alone. */
  get current(): number {
    if (performance.now() - this.#renewedMs > USABLE_MS)
      throw unavailable("no session can be started while the database is away", 5, {
        reason: "database",
      });
    this.#isUnused = false;
    return this.#number;
  }

  /** Rejects once the signal is aborted. */
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
