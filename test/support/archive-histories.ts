import { type Origin } from "../../src/archives/piece-index.ts";
import { type MadeBatch, type MadeSession, batchAt, rowAt } from "./archive-store.ts";
import { Random } from "./random.ts";

export type History = {
  /** Sessions of each archive. */
  archives: Map<bigint, MadeSession>[];
  /** Batches that a reader must get of each session. */
  expected: Map<bigint, { rows: Origin[]; batches: MadeBatch[] }>;
};

/**
 * Makes up what several archivers have written of some sessions: most archives follow one another,
 * some overlap, and some records were archived or stored twice.
 */
export function aHistory(
  seed: number,
  { sessions = 8, archives = 6, batches = 300, bytesMax = 4000 } = {},
): History {
  const random = new Random(seed);
  const segments = Array.from({ length: archives * 3 }, (_, nth) =>
    Bun.randomUUIDv7("hex", 1_764_500_000_000 + nth),
  );
  const made = Array.from({ length: archives }, () => new Map<bigint, MadeSession>());
  const all = new Map<bigint, { rows: Origin[]; batches: MadeBatch[] }>();
  const archiveOf = (segment: number) =>
    random.chance(0.8) ? Math.floor(segment / 3) : random.integer(0, archives - 1);
  const placeIn = (nth: number, session: bigint) => {
    const place = made[nth]?.get(session) ?? { rows: [], batches: [] };
    made[nth]?.set(session, place);
    return place;
  };
  let offset = 8;
  for (let n = 0; n < batches; n++) {
    const session = 1000n + BigInt(random.integer(0, sessions - 1)) * 7n;
    const known = all.get(session) ?? { rows: [], batches: [] };
    all.set(session, known);
    const segment = random.integer(0, segments.length - 1);
    const origin = { segmentId: segments[segment] ?? "", offset };
    offset += 100;
    const nth = archiveOf(segment);
    if (random.chance(0.1)) {
      const row = rowAt(random.chance(0.5) ? "session" : "image", origin, { id: n });
      known.rows.push(origin);
      placeIn(nth, session).rows.push(row);
      if (random.chance(0.3)) placeIn(archiveOf(segment), session).rows.push(row);
      continue;
    }
    const isResent = random.chance(0.1) && known.batches.length > 0;
    const earlier = known.batches[random.integer(0, Math.max(0, known.batches.length - 1))];
    const body =
      isResent && earlier !== undefined ? earlier.body : random.bytes(random.integer(1, bytesMax));
    const batch = batchAt(origin, body, random.chance(0.1) ? 4 : 0);
    known.batches.push(batch);
    placeIn(nth, session).batches.push(batch);
    if (random.chance(0.1)) placeIn(archiveOf(segment), session).batches.push(batch);
  }
  for (const archive of made) for (const place of archive.values()) tidied(place);
  for (const [session, { rows, batches: sent }] of all)
    all.set(session, { rows: rows.toSorted(byOrigin), batches: unique(sent) });
  return { archives: made.filter((archive) => archive.size > 0), expected: all };
}

/** Puts records in order, each of them once, as an archiver does. */
function tidied(place: MadeSession): void {
  place.rows = [...new Set(place.rows)].toSorted((a, b) => byOrigin(a.origin, b.origin));
  place.batches = [...new Set(place.batches)].toSorted(byOrigin);
}

/** Returns the first copy of each batch, in the order of commits. */
function unique(batches: MadeBatch[]): MadeBatch[] {
  const first = new Map<bigint, MadeBatch>();
  for (const batch of batches.toSorted(byOrigin))
    if (!first.has(batch.hash)) first.set(batch.hash, batch);
  return [...first.values()];
}

function byOrigin(a: Origin, b: Origin): number {
  if (a.segmentId !== b.segmentId) return a.segmentId < b.segmentId ? -1 : 1;
  return a.offset - b.offset;
}
