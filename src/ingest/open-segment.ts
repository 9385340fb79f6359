import { type Waiting } from "../platform/metrics.ts";
import { SegmentWriter } from "./segment.ts";

/** A segment on its way: `committed` settles when its records are durable and findable, or cannot be. Holds none of its bytes. */
export class PendingSegment {
  readonly #outcome = Promise.withResolvers<void>();
  readonly committed = this.#outcome.promise;
  readonly resolve = this.#outcome.resolve;
  readonly reject = this.#outcome.reject;
  /** undefined while the segment is open */
  id: string | undefined;

  constructor() {
    // An upload that was given up leaves records that nobody waits for.
    this.committed.catch(() => undefined);
  }
}

/** A segment that takes records, or waits for its commit. */
export class OpenSegment {
  readonly pending = new PendingSegment();
  readonly openedMs = performance.now();
  readonly writer: SegmentWriter;
  readonly timer: NodeJS.Timeout;
  /** bytes by project */
  readonly held = new Map<number, number>();
  waitsFor: keyof Waiting["segments"] = "open";

  constructor(buffer: Uint8Array, timer: NodeJS.Timeout) {
    this.writer = new SegmentWriter(buffer);
    this.timer = timer;
  }
}
