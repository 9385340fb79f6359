/**
 * Kinds of batches: of mobile SDKs, of the web tracker's streams, of its first protocol with all
 * streams in one (`web`), and JSON of product analytics (`sdk`). A kind's index is its number in
 * the stored format: append only, at most 16.
 */
const BATCH_KINDS = ["mobile", "player", "assets", "devtools", "analytics", "web", "sdk"] as const;
export type BatchKind = (typeof BATCH_KINDS)[number];

const SHIFT = 4;

/** Returns the kind as the upper four bits of a record's flags. */
export function kindFlags(kind: BatchKind): number {
  return BATCH_KINDS.indexOf(kind) << SHIFT;
}

/** Returns the kind in a record's flags; `unknown` for one of a later version. */
export function batchKindOf(flags: number): BatchKind | "unknown" {
  return BATCH_KINDS[flags >> SHIFT] ?? "unknown";
}
