import { type BatchKind, batchKindOf, kindFlags } from "../log/batch-kind.ts";
import { FLAG } from "../log/record.ts";
import { type Place } from "../log/segment-reader.ts";
import { type Sql } from "../platform/database/database.ts";

/** Kinds of batches that replay files are made of. */
const KINDS = ["mobile", "player", "assets", "devtools", "web"] as const satisfies BatchKind[];
// The bits of the flags that are the kind.
const KIND_BITS = 0xf0;
// Batches of a session that are replayed at most: further ones are left out.
const BATCHES_MAX = 2 ** 18;
// Seconds of a session that are in the first of its two DOM files.
const EARLY_S = 15;

// Fields of a packed row, as the query below writes them.
const ID_BYTES = 16;
const ROW_BYTES = ID_BYTES + 4 + 4 + 4 + 2 + 1;

export type BatchRow = Place & { flags: number; bytes: number };
type Wanted = (kind: BatchKind | "unknown", isEarly: boolean) => boolean;

/**
 * Rows of a session's batches at one moment, in the order of their times. They are packed, because
 * a session may have more of them than should be objects.
 */
export class BatchRows {
  readonly #packed: Buffer;

  private constructor(packed: Buffer) {
    this.#packed = packed;
  }

  /**
   * Reads the rows of a session's well-formed batches: those of web pages by the time in their
   * header. Leaves out late batches that a phone wrote before the session's own ones: a crash kept
   * them back, and they were sent with the token of the session after it.
   */
  static async read(sql: Sql, sessionId: bigint): Promise<BatchRows> {
    const own = sql`session_id = ${sessionId} and flags & ${FLAG.quarantined} = 0`;
    const order = sql`first_at nulls last, received_at, segment_id, "offset"`;
    const [row] = await sql<[{ packed: Buffer }]>`
      with replayed as (
        select batches.*, first_at <= early.until as is_early
        from batches, (
          select started_at + make_interval(secs => ${EARLY_S}) as until from sessions where id = ${sessionId}
        ) as early
        where ${own} and flags & ${KIND_BITS} = any(${KINDS.map(kindFlags)}::integer[])
          and not coalesce(flags & ${FLAG.late} <> 0 and last_at < (
            select min(first_at) from batches where ${own} and flags & ${FLAG.late} = 0
          ), false)
        order by ${order} limit ${BATCHES_MAX}
      )
      select coalesce(string_agg(
        uuid_send(segment_id) || int4send("offset") || int4send(length) || int4send(bytes)
          || int2send(flags) || boolsend(coalesce(is_early, false)),
        ''::bytea order by ${order}), ''::bytea) as packed
      from replayed`;
    return new BatchRows(row.packed);
  }

  get length(): number {
    return this.#packed.length / ROW_BYTES;
  }

  /** Size of all batches when inflated. */
  get bytes(): number {
    let sum = 0;
    for (let at = 0; at < this.#packed.length; at += ROW_BYTES)
      sum += this.#packed.readUInt32BE(at + ID_BYTES + 8);
    return sum;
  }

  /** Text that differs for other batches, and for another order. */
  get tag(): string {
    return Bun.SHA256.hash(this.#packed, "hex").slice(0, 32);
  }

  at(nth: number): BatchRow {
    const at = nth * ROW_BYTES;
    const id = this.#packed.toString("hex", at, at + ID_BYTES);
    const field = at + ID_BYTES;
    return {
      segmentId: id.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-"),
      offset: this.#packed.readUInt32BE(field),
      length: this.#packed.readUInt32BE(field + 4),
      bytes: this.#packed.readUInt32BE(field + 8),
      flags: this.#packed.readUInt16BE(field + 12),
    };
  }

  *[Symbol.iterator](): Generator<BatchRow> {
    for (let nth = 0; nth < this.length; nth++) yield this.at(nth);
  }

  filter(wanted: Wanted): BatchRows {
    const kept = Buffer.allocUnsafe(this.#packed.length);
    let used = 0;
    for (let at = 0; at < this.#packed.length; at += ROW_BYTES) {
      const kind = batchKindOf(this.#packed.readUInt16BE(at + ID_BYTES + 12));
      const isEarly = this.#packed[at + ROW_BYTES - 1] === 1;
      if (wanted(kind, isEarly)) used += this.#packed.copy(kept, used, at, at + ROW_BYTES);
    }
    return new BatchRows(kept.subarray(0, used));
  }
}
