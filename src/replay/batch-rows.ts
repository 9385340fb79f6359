import { type StoredBatch } from "../archives/session-merge.ts";
import { type Readable, type SessionRecords } from "../archives/session-records.ts";
import { type BatchKind, batchKindOf } from "../log/batch-kind.ts";
import { FLAG } from "../log/record.ts";
import { type Lost } from "../platform/objects/read-faults.ts";

/** Kinds of batches that replay files are made of. */
const KINDS: ReadonlySet<string> = new Set<BatchKind>([
  "mobile",
  "player",
  "assets",
  "devtools",
  "web",
]);
// Batches of a session that are replayed at most: further ones are left out.
const BATCHES_MAX = 2 ** 18;
const PAGE_BATCHES = 10_000;
// Time of a session that is in the first of its two DOM files.
const EARLY_MS = 15_000;

// Fields of a packed row. The first ones stay the same when a batch moves into an archive.
const ID_BYTES = 16;
const AT = { offset: 16, bytes: 20, flags: 24, isEarly: 26, isGzip: 27, place: 28, frame: 32 };
const TIMES = { hash: 36, first: 44, last: 52, received: 60 };
const TAGGED_BYTES = AT.isGzip;
const ROW_BYTES = 68;
const NO_FRAME = 2 ** 32 - 1;
const START_ROWS = 512;

type Frame = NonNullable<Readable["frame"]>;
export type BatchRow = Readable;
type Wanted = (kind: BatchKind | "unknown", isEarly: boolean) => boolean;
type Rows = {
  packed: Buffer;
  /** Frames of archives that rows name by their number. */
  frames: readonly Frame[];
  lost: Lost | undefined;
};

/**
 * Rows of a session's batches, in the order of their times. They are packed, because a session may
 * have more of them than should be objects.
 */
export class BatchRows {
  readonly #rows: Rows;

  private constructor(rows: Rows) {
    this.#rows = rows;
  }

  /**
   * Lists a session's well-formed batches: those of web pages by the time in their header. Leaves
   * out late batches that a phone wrote before the session's own ones: a crash kept them back, and
   * they were sent with the token of the session after it.
   */
  static async read(records: SessionRecords, startedAt: Date): Promise<BatchRows> {
    const options = { quarantined: false, pageBatches: PAGE_BATCHES, readsBodies: false };
    const table = new Table(startedAt.getTime() + EARLY_MS);
    for await (const batch of records.list(options)) {
      if ("lost" in batch) table.lost ??= batch.lost;
      else table.add(batch);
      if (table.length === BATCHES_MAX) break;
    }
    return new BatchRows(table.sorted());
  }

  /** Set if there are batches that no index lists. */
  get lost(): Lost | undefined {
    return this.#rows.lost;
  }

  get length(): number {
    return this.#rows.packed.length / ROW_BYTES;
  }

  /** Size of all batches when inflated. */
  get bytes(): number {
    const { packed } = this.#rows;
    let sum = 0;
    for (let at = 0; at < packed.length; at += ROW_BYTES) sum += packed.readUInt32BE(at + AT.bytes);
    return sum;
  }

  /**
   * Text that differs for other batches, and for another order. Batches that move into an archive
   * stay the same.
   */
  get tag(): string {
    const { packed } = this.#rows;
    const hash = new Bun.SHA256();
    for (let at = 0; at < packed.length; at += ROW_BYTES)
      hash.update(packed.subarray(at, at + TAGGED_BYTES));
    return hash.digest("hex").slice(0, 32);
  }

  at(nth: number): BatchRow {
    const { packed, frames } = this.#rows;
    const at = nth * ROW_BYTES;
    const id = packed.toString("hex", at, at + ID_BYTES);
    const row = {
      segmentId: id.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-"),
      offset: packed.readUInt32BE(at + AT.offset),
      bytes: packed.readUInt32BE(at + AT.bytes),
      flags: packed.readUInt16BE(at + AT.flags) | (packed[at + AT.isGzip] ?? 0),
      hash: packed.readBigUInt64BE(at + TIMES.hash),
    };
    const place = packed.readUInt32BE(at + AT.place);
    const frame = frames[packed.readUInt32BE(at + AT.frame)];
    return frame === undefined ? { ...row, length: place } : { ...row, frame, frameOffset: place };
  }

  *[Symbol.iterator](): Generator<BatchRow> {
    for (let nth = 0; nth < this.length; nth++) yield this.at(nth);
  }

  filter(wanted: Wanted): BatchRows {
    const { packed } = this.#rows;
    const kept = Buffer.allocUnsafe(packed.length);
    let used = 0;
    for (let at = 0; at < packed.length; at += ROW_BYTES) {
      const kind = batchKindOf(packed.readUInt16BE(at + AT.flags));
      if (wanted(kind, packed[at + AT.isEarly] === 1))
        used += packed.copy(kept, used, at, at + ROW_BYTES);
    }
    return new BatchRows({ ...this.#rows, packed: kept.subarray(0, used) });
  }
}

/** Rows that are being collected. */
class Table {
  readonly #earlyUntilMs: number;
  #packed = Buffer.alloc(START_ROWS * ROW_BYTES);
  readonly #frames = new Map<Frame, number>();
  /** The first time of the batches that are not late. */
  #firstMs = Number.NaN;
  length = 0;
  lost: Lost | undefined;

  constructor(earlyUntilMs: number) {
    this.#earlyUntilMs = earlyUntilMs;
  }

  add(batch: StoredBatch): void {
    const { flags, firstAt, lastAt } = batch;
    if ((flags & FLAG.late) === 0 && firstAt !== null && !(this.#firstMs <= firstAt))
      this.#firstMs = firstAt;
    if (!KINDS.has(batchKindOf(flags))) return;
    const at = this.length++ * ROW_BYTES;
    if (at === this.#packed.length) this.#packed = Buffer.concat([this.#packed], 2 * at);
    const row = this.#packed;
    row.write(batch.segmentId.replaceAll("-", ""), at, "hex");
    row.writeUInt32BE(batch.offset, at + AT.offset);
    row.writeUInt32BE(batch.bytes, at + AT.bytes);
    row.writeUInt16BE(flags & ~FLAG.gzip, at + AT.flags);
    row[at + AT.isEarly] = firstAt !== null && firstAt <= this.#earlyUntilMs ? 1 : 0;
    row[at + AT.isGzip] = flags & FLAG.gzip;
    row.writeUInt32BE(batch.frame === undefined ? batch.length : batch.frameOffset, at + AT.place);
    row.writeUInt32BE(
      batch.frame === undefined ? NO_FRAME : this.#nthOf(batch.frame),
      at + AT.frame,
    );
    row.writeBigUInt64BE(batch.hash, at + TIMES.hash);
    row.writeDoubleBE(firstAt ?? Number.POSITIVE_INFINITY, at + TIMES.first);
    row.writeDoubleBE(lastAt ?? Number.POSITIVE_INFINITY, at + TIMES.last);
    row.writeDoubleBE(batch.receivedAt, at + TIMES.received);
  }

  /** Returns the rows that are replayed, by their times and then in the order of commits. */
  sorted(): Rows {
    const packed = this.#packed;
    const time = (nth: number, at: number) => packed.readDoubleBE(nth * ROW_BYTES + at);
    const isReplayed = (nth: number) => {
      const isLate = (packed.readUInt16BE(nth * ROW_BYTES + AT.flags) & FLAG.late) !== 0;
      return !(isLate && time(nth, TIMES.last) < this.#firstMs);
    };
    const order = Array.from({ length: this.length }, (_, nth) => nth).filter(isReplayed);
    const compare = (a: number, b: number, at: number) =>
      time(a, at) === time(b, at) ? 0 : time(a, at) - time(b, at);
    order.sort((a, b) => compare(a, b, TIMES.first) || compare(a, b, TIMES.received));
    const sorted = Buffer.allocUnsafe(order.length * ROW_BYTES);
    for (const [to, nth] of order.entries())
      packed.copy(sorted, to * ROW_BYTES, nth * ROW_BYTES, (nth + 1) * ROW_BYTES);
    return { packed: sorted, frames: [...this.#frames.keys()], lost: this.lost };
  }

  #nthOf(frame: Frame): number {
    const nth = this.#frames.get(frame) ?? this.#frames.size;
    this.#frames.set(frame, nth);
    return nth;
  }
}
