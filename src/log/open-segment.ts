import { type Waiting } from "../platform/telemetry/metrics.ts";
import { type Indexed } from "./segment-index.ts";
import { type BatchFacts, type RecordHead, type SegmentEntry } from "./record.ts";
import { SegmentWriter } from "./segment.ts";

/**
 * A segment being committed: `committed` resolves when its records are durable and indexed, or
 * rejects when they cannot be. Does not hold its bytes.
 */
export class PendingSegment {
  readonly #outcome = Promise.withResolvers<Indexed>();
  readonly committed = this.#outcome.promise;
  readonly resolve = this.#outcome.resolve;
  readonly reject = this.#outcome.reject;
  /** Undefined while the segment is open. */
  id: string | undefined;

  constructor() {
    // Avoid an unhandled rejection: records of an aborted upload have no one waiting for them.
    this.committed.catch(() => undefined);
  }
}

/** Segment that takes records, or waits for its commit. */
export class OpenSegment {
  readonly pending = new PendingSegment();
  readonly openedMs = performance.now();
  readonly writer: SegmentWriter;
  readonly timer: NodeJS.Timeout;
  /** True if the writer's buffer belongs to the pool. */
  readonly isPooled: boolean;
  /** Bytes held, by project. */
  readonly held = new Map<number, number>();
  /** True if a request waits for its records; chunks of an upload that continues have no one waiting. */
  isAwaited = false;
  waitsFor: keyof Waiting["segments"] = "open";

  constructor(buffer: Uint8Array, isPooled: boolean, timer: NodeJS.Timeout) {
    this.writer = new SegmentWriter(buffer);
    this.isPooled = isPooled;
    this.timer = timer;
  }

  /** Copies a record. The caller must check with the writer that there is room. */
  append(head: RecordHead, body: Uint8Array, facts?: BatchFacts): SegmentEntry {
    this.isAwaited ||= head.kind !== "chunk";
    this.held.set(head.projectId, (this.held.get(head.projectId) ?? 0) + body.length);
    return this.writer.append(head, body, facts);
  }
}

/** Returns what segments wait for, and how long the first of them has been open. */
export function waitingOf(unsettled: Set<OpenSegment>): Waiting {
  const segments = { open: 0, slot: 0, put: 0, index: 0 };
  for (const { waitsFor } of unsettled) segments[waitsFor]++;
  const [oldest] = unsettled;
  return { segments, oldestMs: oldest === undefined ? 0 : performance.now() - oldest.openedMs };
}
