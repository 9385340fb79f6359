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
