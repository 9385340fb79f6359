import { pack } from "msgpackr";
import pLimit from "p-limit";

import { type Clock } from "../platform/clock.ts";
import { unavailable } from "../platform/errors.ts";
import { type Log } from "../platform/logger.ts";
import { type Metrics, type Waiting } from "../platform/telemetry/metrics.ts";
import { type ObjectStore } from "../platform/objects/objects.ts";
import { readyMemory } from "../platform/streams.ts";
import { type Outage } from "../platform/database/outage.ts";
import { CarriedRecords } from "./carried-records.ts";
import { CommitDeadline } from "./commit-deadline.ts";
import { type InflightBytes } from "./inflight-bytes.ts";
import { FLAG, type NewRecord, type RecordHead, type SegmentEntry } from "./record.ts";
import { type Segment, SegmentWriter, segmentKey } from "./segment.ts";
import { OpenSegment, type PendingSegment, waitingOf } from "./open-segment.ts";
import { BufferPool } from "../platform/buffer-pool.ts";
import { discarded, release } from "../platform/gc.ts";
import { TokenBucket } from "../platform/token-bucket.ts";

const PUTS_MAX = 8;
// A segment of this size closes once nothing was appended for this long: its clients may all be
// waiting.
const QUIET = { bytes: 512 * 1024, ms: 8 };
// PUTs per second; segments that close for other reasons count, too.
const EAGER = { perSecond: 4, burst: 40, debtMax: 8 };

export type CommitLogDeps = {
  objects: ObjectStore;
  /** Indexes the records of a stored segment; idempotent. Throws SegmentDeleted. */
  index: (segment: Segment) => PendingSegment["committed"];
  inflight: InflightBytes;
  /** Refuses new records while stored ones could not be indexed. */
  outage: Pick<Outage, "check">;
  clock: Clock;
  metrics: Metrics;
  log: Log;
};

export type CommitLogOptions = {
  intervalMs: number;
  bytes: number;
  /** Time within which a record must be stored and indexed, or else its client gets a 503. */
  deadlineMs: number;
};

/** Group commit: acknowledges records once the object that they share is stored and indexed. */
export class CommitLog {
  readonly #deps: CommitLogDeps;
  readonly #options: CommitLogOptions;
  readonly #puts = pLimit(PUTS_MAX);
  readonly #eager = new TokenBucket(EAGER.perSecond, EAGER.burst, undefined, EAGER.debtMax);
  readonly #committing = new Set<Promise<void>>();
  /** Segments that are neither committed nor failed yet, the oldest one first. */
  readonly #unsettled = new Set<OpenSegment>();
  readonly #buffers: BufferPool;
  readonly #carried = new CarriedRecords(() => this.closeAll());
  #open: OpenSegment | undefined;
  readonly #deadlines = new Set<CommitDeadline>();
  #abandoned = false;
  #due = false;
  #appendedMs = 0;
  #quietTimer: NodeJS.Timeout | undefined;
  #checkScheduled = false;
  /** Age at which a segment closes though every PUT slot is taken: its records share one deadline. */
  readonly #openMsMax: number;

  constructor(deps: CommitLogDeps, options: CommitLogOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#buffers = new BufferPool(options.bytes);
    this.#openMsMax = options.deadlineMs / PUTS_MAX;
  }

  /** Allocates memory for records, without blocking, if they need a segment of their own. */
  memoryFor(bodyBytes: number, records = 1): Promise<Uint8Array> | undefined {
    const bytes = SegmentWriter.bytesFor(bodyBytes, records);
    return bytes > this.#options.bytes ? readyMemory(bytes) : undefined;
  }

  /** Copies a record into the open segment. Await `committed` to acknowledge. Throws 503 in outages. */
  append(record: NewRecord): { segment: PendingSegment; entry: SegmentEntry } {
    this.#deps.outage.check();
    const segment = this.#segmentFor(record.body.length, 1);
    return { segment: segment.pending, entry: this.#add(segment, record) };
  }

  /** Copies records into one segment, so that all of them are stored or none. Throws 503 in outages. */
  appendAll(records: NewRecord[], bytes: number, memory?: Uint8Array): PendingSegment {
    this.#deps.outage.check();
    const segment = this.#segmentFor(bytes, records.length, memory);
    for (const record of records) this.#add(segment, record);
    return segment.pending;
  }

  /** Returns the open segment, or a new one if the records do not fit. */
  #segmentFor(bytes: number, records: number, memory?: Uint8Array): OpenSegment {
    if (this.#open !== undefined && !this.#open.writer.fits(bytes, records)) this.close();
    return (this.#open ??= this.#openSegment(SegmentWriter.bytesFor(bytes, records), memory));
  }

  #add(segment: OpenSegment, { head, body, facts }: NewRecord): SegmentEntry {
    const entry = segment.append(this.#stamped(head), body, facts);
    this.#deps.inflight.add(head.projectId, body.length);
    this.#scheduleCheck();
    this.#appendedMs = performance.now();
    if (segment.writer.bytes >= QUIET.bytes) this.#watchQuiet(QUIET.ms);
    return entry;
  }

  /**
   * Records a row of the database, so that it can be rebuilt from the segments: field names are the
   * column names. Throws 503 if there is no room, unless `isHeld`: the caller has reserved room.
   */
  appendRow(
    kind: "session" | "image" | "project",
    row: object,
    ids: { projectId: number; sessionId: bigint },
    isHeld = false,
  ): PendingSegment {
    const body = pack(row);
    if (!isHeld) this.#deps.inflight.check(ids.projectId, body.length);
    return this.append({ head: { kind, flags: 0, ...ids }, body }).segment;
  }

  #stamped(head: NewRecord["head"]): RecordHead {
    return { ...head, receivedAt: Math.floor(this.#deps.clock.epochMs()) };
  }

  /** Records a row that is already in the database: the next segment carries it, without its own PUT. */
  carryRow(kind: "image", row: object, ids: { projectId: number; sessionId: bigint }): void {
    this.#carried.add(this.#stamped({ kind, flags: FLAG.indexed, ...ids }), pack(row));
    if (this.#carried.isFull) this.closeAll();
  }

  /** Returns whether the open segment has room for that many records with that many bytes in all. */
  fits(bytes: number, records: number): boolean {
    return this.#open?.writer.fits(bytes, records) ?? false;
  }

  /** Returns what unfinished segments wait for, and how long the oldest record has waited. */
  waiting(): Waiting {
    return waitingOf(this.#unsettled);
  }

  /** Commits the open segment early, as if a request waited for it: it is in the way of an upload. */
  hurry(): void {
    if (this.#open === undefined) return;
    this.#open.isAwaited = true;
    this.#scheduleCheck();
  }

  /** Starts the commit of the open segment and of the carried records. */
  closeAll(): void {
    if (!this.#carried.isEmpty) this.#open ??= this.#openSegment(0);
    this.close();
  }

  /** Starts the commit of the open segment. */
  close(): void {
    const segment = this.#open;
    if (segment === undefined) return;
    this.#carried.appendTo(segment.writer);
    this.#open = undefined;
    this.#due = false;
    clearInterval(segment.timer);
    segment.waitsFor = "slot";
    this.#eager.take(1);
    // Assigned on closing, not on opening, so that ids rise in the order in which one client's batches
    // are acknowledged.
    segment.pending.id = Bun.randomUUIDv7("hex", this.#deps.clock.epochMs());
    const sealed = segment.writer.seal(segment.pending.id);
    const commit = this.#puts(() => this.#commit(segment, sealed)).finally(() => {
      this.#committing.delete(commit);
      this.#closeIfDue();
    });
    this.#committing.add(commit);
  }

  /** Fails what is not stored yet, so that its clients get an answer before the process ends. */
  abandon(): void {
    this.#abandoned = true;
    this.close();
    for (const deadline of this.#deadlines) deadline.expire();
  }

  /** Commits the open segment and waits for all outcomes. */
  async flush(): Promise<void> {
    this.close();
    await Promise.all(this.#committing);
  }

  #openSegment(bytesMin: number, memory?: Uint8Array): OpenSegment {
    const bytes = Math.max(this.#options.bytes, bytesMin);
    const timer = setInterval(() => {
      this.#due = true;
      if (performance.now() - segment.openedMs >= this.#openMsMax) this.close();
      else this.#closeIfDue();
    }, this.#options.intervalMs);
    const isPooled = bytes === this.#options.bytes;
    const own = memory?.length === bytes ? memory : undefined;
    const buffer = isPooled ? this.#buffers.take() : (own ?? Buffer.allocUnsafeSlow(bytes));
    const segment = new OpenSegment(buffer, isPooled, timer);
    this.#unsettled.add(segment);
    return segment;
  }

  /** Checks once per turn of the event loop, so that requests that arrive together share a segment. */
  #scheduleCheck(): void {
    if (this.#checkScheduled) return;
    this.#checkScheduled = true;
    setImmediate(() => {
      this.#checkScheduled = false;
      this.#closeIfDue();
    });
  }

  /**
   * Closes the open segment if it is due: after the interval, or if requests wait for it, at once
   * while there are few PUTs, or, if PUTs are free, while none is running. Also closes a half-full
   * segment while most PUT slots are idle, and a smaller one once nothing more arrives, because
   * clients that wait for an answer before they send more would wait for the interval. While every
   * PUT slot is taken the segment fills up, so that a slow store gets full segments.
   */
  #closeIfDue(): void {
    const open = this.#open;
    if (open === undefined || this.#committing.size >= PUTS_MAX) return;
    if (this.#due || (open.isAwaited && this.#isWorthwhile(open))) this.close();
  }

  #isWorthwhile({ writer }: OpenSegment): boolean {
    const free = this.#deps.objects.freePuts && this.#committing.size === 0;
    const half = this.#committing.size < PUTS_MAX / 2 && writer.bytes >= this.#options.bytes / 2;
    const quiet = writer.bytes >= QUIET.bytes && performance.now() - this.#appendedMs >= QUIET.ms;
    return free || half || quiet || this.#eager.has(1);
  }

  #watchQuiet(ms: number): void {
    if (this.#quietTimer !== undefined) return;
    this.#quietTimer = setTimeout(() => {
      this.#quietTimer = undefined;
      this.#closeIfDue();
      const leftMs = QUIET.ms - (performance.now() - this.#appendedMs);
      if (this.#open !== undefined && leftMs > 0) this.#watchQuiet(leftMs);
    }, ms);
  }

  async #commit(segment: OpenSegment, sealed: Segment): Promise<void> {
    const { objects, index, inflight, metrics, log } = this.#deps;
    // The deadline counts from the first record on, so that no client waits longer than that.
    const leftMs = segment.openedMs + this.#options.deadlineMs - performance.now();
    using deadline = new CommitDeadline(this.#abandoned ? 0 : leftMs);
    this.#deadlines.add(deadline);
    let attempts = 0;
    let reusable = false;
    try {
      segment.waitsFor = "put";
      await deadline.retry("put", this.#deps, async () => {
        attempts++;
        await objects.put(segmentKey(sealed.id), sealed.bytes, deadline.signal);
      });
      segment.waitsFor = "index";
      const indexed = await deadline.retry("index", this.#deps, () => index(sealed));
      // After a failed attempt an abandoned request or statement may still read the buffer.
      reusable = attempts === 1;
      metrics.segments.inc({ outcome: "committed" });
      metrics.segmentBytes.observe(sealed.bytes.length);
      metrics.segmentRecords.observe(sealed.entries.length);
      segment.pending.resolve(indexed);
    } catch (cause) {
      metrics.segments.inc({ outcome: "failed" });
      log.error(
        { err: cause, segment: sealed.id, records: sealed.entries.length },
        "segment not committed",
      );
      segment.pending.reject(
        unavailable("the data could not be stored, send it again", 2, {
          cause,
          reason: segment.waitsFor === "index" ? "database" : "store",
        }),
      );
    }
    this.#deadlines.delete(deadline);
    this.#unsettled.delete(segment);
    inflight.remove(segment.held, performance.now() - segment.openedMs);
    const { buffer } = segment.writer;
    if (segment.isPooled) this.#buffers.give(buffer, reusable);
    else if (reusable) release(buffer);
    if (!reusable) discarded(buffer.length);
  }
}
