import { type Sql } from "../platform/database/database.ts";
import { STATUS } from "./enums.ts";

/** Time without a renewal after which a worker is taken to be gone. */
export const LEASE_MS = 3000;

/**
 * Right to send one launch of a campaign. Every claim has a `worker` of its own: a process that was
 * frozen may have claimed the same launch again.
 */
export type Lease = { id: number; launch: number; worker: string };

/** Thrown when the campaign was cancelled, or another worker has its lease. */
export class LeaseLost extends Error {
  override readonly name = "LeaseLost";
}

/** A lease in the hands of its worker. Aborts the run when it is lost. */
export class HeldLease {
  readonly #sql: Sql;
  readonly #lease: Lease;
  readonly #run: AbortController;
  #renewedMs = performance.now();

  constructor(sql: Sql, lease: Lease, run: AbortController) {
    this.#sql = sql;
    this.#lease = lease;
    this.#run = run;
  }

  /** Aborts the run of a process that was frozen, because another worker may have taken over. */
  checkAge(): void {
    if (performance.now() - this.#renewedMs > LEASE_MS)
      this.#run.abort(new LeaseLost("the lease was not renewed in time"));
  }

  /**
   * Extends the lease, also of a cancelled campaign: its sends must be recorded before another
   * worker may begin.
   */
  async renew(doneCursor: number): Promise<void> {
    const sql = this.#sql;
    const { id, launch, worker } = this.#lease;
    const askedMs = performance.now();
    const [held] = await sql<{ status: number }[]>`
      update notifications set leased_until = now() + ${LEASE_MS} * interval '1 millisecond',
        done_cursor = greatest(done_cursor, ${doneCursor})
      where id = ${id} and launch = ${launch} and worker = ${worker} returning status`;
    if (held === undefined) this.#run.abort(new LeaseLost("another worker has it"));
    else if (held.status !== STATUS.launched) this.#run.abort(new LeaseLost("cancelled"));
    else this.#renewedMs = askedMs;
  }

  /** Lets another worker continue at once. */
  async giveBack(doneCursor: number): Promise<void> {
    const sql = this.#sql;
    const { id, launch, worker } = this.#lease;
    await sql`
      update notifications set worker = null, leased_until = null, done_cursor = greatest(done_cursor, ${doneCursor})
      where id = ${id} and launch = ${launch} and worker = ${worker}`;
  }

  /**
   * Ends the campaign, as sent unless there is an error. Changes nothing once another worker has it
   * or it was cancelled.
   */
  async endCampaign(error?: string): Promise<void> {
    const sql = this.#sql;
    const { id, launch, worker } = this.#lease;
    await sql`
      update notifications set status = ${error === undefined ? STATUS.sent : STATUS.error}, error = ${error ?? null},
        modified_at = now(), worker = null, leased_until = null
      where id = ${id} and launch = ${launch} and worker = ${worker} and status = ${STATUS.launched}`;
  }
}
