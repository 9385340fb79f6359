import { type Sql } from "../platform/database.ts";
import { unavailable } from "../platform/errors.ts";
import { type Log } from "../platform/log.ts";

const LEASE_S = 60;
const RENEW_MS = 10_000;
// Well before the lease ends by the database's clock: nobody else can have the number while this process uses it.
const USABLE_MS = 40_000;
const NUMBERS = 65_536;

/** The 16 bits of session ids that no other process has, by a lease in the database. */
export class WorkerNumber implements Disposable {
  readonly #sql: Sql;
  readonly #log: Log;
  readonly #holder = crypto.randomUUID();
  readonly #timer: NodeJS.Timeout;
  #number = 0;
  #renewedMs = Number.NEGATIVE_INFINITY;

  private constructor(sql: Sql, log: Log) {
    this.#sql = sql;
    this.#log = log;
    this.#timer = setInterval(() => {
      this.#renew().catch((error: unknown) =>
        this.#log.warn({ err: error }, "the worker number was not renewed"),
      );
    }, RENEW_MS);
  }

  static async lease(sql: Sql, log: Log): Promise<WorkerNumber> {
    const worker = new WorkerNumber(sql, log);
    await worker.#take();
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

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    const sql = this.#sql;
    // Nobody waits for a database that may be silent: without it the lease runs out by itself.
    sql`update session_worker_leases set leased_until = now() where holder = ${this.#holder}`.catch(
      () => undefined,
    );
  }

  async #renew(): Promise<void> {
    const sql = this.#sql;
    const askedMs = performance.now();
    const [held] = await sql`
      update session_worker_leases set leased_until = now() + ${LEASE_S} * interval '1 second'
      where number = ${this.#number} and holder = ${this.#holder} returning 1`;
    if (held === undefined) await this.#take();
    else this.#renewedMs = askedMs;
  }

  async #take(): Promise<void> {
    const sql = this.#sql;
    for (let tries = 0; tries < NUMBERS; tries++) {
      const askedMs = performance.now();
      const [taken] = await sql<{ number: number }[]>`
        insert into session_worker_leases as lease (number, holder, leased_until)
        values (nextval('session_workers'), ${this.#holder}, now() + ${LEASE_S} * interval '1 second')
        on conflict (number) do update set holder = excluded.holder, leased_until = excluded.leased_until
        where lease.leased_until < now() returning number`;
      if (taken === undefined) continue;
      this.#number = taken.number;
      this.#renewedMs = askedMs;
      return;
    }
    throw new Error("all worker numbers are in use");
  }
}
