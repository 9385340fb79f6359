import { pack, unpack } from "msgpackr";

import { type Kind } from "../log/record.ts";
import { sessionTime } from "../log/session-time.ts";
import { type HashedImage, type ImageRecord, isHashed } from "../log/stored-segment.ts";
import { type Queryable } from "../platform/database/database.ts";
import { arrayLiteral, unnested } from "../platform/database/unnested.ts";
import { dayOf } from "./archive-key.ts";
import { type FoundRecord, type ReadSegment } from "./leased-segments.ts";
import { type Archive } from "./piece.ts";
import { type KnownSession } from "./swap.ts";

/** Records that go into one archive, by session in ascending order. */
export type Group = Pick<Archive, "kind" | "projectId" | "day"> & {
  sessions: { id: bigint; records: FoundRecord[] }[];
};

type FoundImage = FoundRecord & { image: ImageRecord };

/**
 * Divides the records of segments, which must be in the order of commits, by project and day. Leaves
 * out what no row refers to: copies of batches, and what was deleted.
 */
export async function groupRecords(
  sql: Queryable,
  segments: ReadSegment[],
): Promise<{ groups: Group[]; known: KnownSession[] }> {
  const records = segments.flatMap((segment) => segment.records);
  const sessions = await knownSessions(sql, records);
  const live = [
    ...(await liveBatches(sql, ofKind(records, "batch"))),
    ...(await liveImages(sql, ofKind(records, "image"))),
    ...ofKind(records, "session").filter(({ entry }) => sessions.has(entry.sessionId)),
    ...ofKind(records, "project"),
  ];
  const groups = Map.groupBy(live, (record) => Object.values(groupOf(record, sessions)).join());
  const used = new Set(live.map(({ entry }) => entry.sessionId));
  return {
    groups: [...groups.values()].flatMap((members) => {
      const [first] = members;
      return first === undefined
        ? []
        : [{ ...groupOf(first, sessions), sessions: bySession(members) }];
    }),
    known: [...sessions].flatMap(([id, projectId]) => (used.has(id) ? [{ id, projectId }] : [])),
  };
}

function groupOf(
  { entry }: FoundRecord,
  sessions: Map<bigint, number>,
): Pick<Archive, "kind" | "projectId" | "day"> {
  const { kind, projectId, sessionId, receivedAt } = entry;
  if (kind === "project") return { kind: "projects", projectId, day: dayOf(receivedAt) };
  const day = dayOf(sessionTime(sessionId));
  return { kind: "sessions", projectId: sessions.get(sessionId) ?? 0, day };
}

function bySession(records: FoundRecord[]): Group["sessions"] {
  const sessions = Map.groupBy(records, ({ entry }) => entry.sessionId);
  return Array.from(sessions, ([id, members]) => ({
    id,
    records: members.toSorted(inCommitOrder),
  })).toSorted((a, b) => (a.id < b.id ? -1 : 1));
}

function inCommitOrder(a: FoundRecord, b: FoundRecord): number {
  if (a.segmentId !== b.segmentId) return a.segmentId < b.segmentId ? -1 : 1;
  return a.entry.offset - b.entry.offset;
}

function ofKind(records: FoundRecord[], kind: Kind): FoundRecord[] {
  return records.filter(({ entry }) => entry.kind === kind);
}

/** Returns the projects of sessions that have a row. */
async function knownSessions(sql: Queryable, records: FoundRecord[]): Promise<Map<bigint, number>> {
  const ids = arrayLiteral(new Set(records.map(({ entry }) => entry.sessionId)));
  const rows = await sql<KnownSession[]>`
    select id, coalesce(project_id, 0) as "projectId" from sessions where id = any(${ids}::text::bigint[])`;
  return new Map(rows.map(({ id, projectId }) => [id, projectId]));
}

/** Returns the batches to which a row refers: not to copies that were sent again. */
async function liveBatches(sql: Queryable, batches: FoundRecord[]): Promise<FoundRecord[]> {
  if (batches.length === 0) return [];
  const places = batches.map(({ segmentId, entry }, nth) => ({
    nth,
    session: entry.sessionId,
    segment: segmentId,
    place: entry.offset,
  }));
  const types = { nth: "integer", session: "bigint", segment: "uuid", place: "integer" };
  const rows = await sql<{ nth: number }[]>`
    select nth from ${unnested(sql, places, types)}
    join batches on (session_id, segment_id, "offset") = (session, segment, place)`;
  const live = new Set(rows.map(({ nth }) => nth));
  return batches.filter((_batch, nth) => live.has(nth));
}

/**
 * Returns the images that their sessions use, as uses: without the places of their chunks. An image
 * of a previous version that was hashed since gets its hash; one that was not keeps its places.
 */
async function liveImages(sql: Queryable, records: FoundRecord[]): Promise<FoundRecord[]> {
  if (records.length === 0) return [];
  const images = records.map((record): FoundImage => ({ ...record, image: unpack(record.body) }));
  const rows = images.map(({ entry, image }, nth) => ({
    nth,
    session: entry.sessionId,
    name: image.name,
    hash: image.sha256,
    stored: image.stored_at,
  }));
  const types = {
    nth: "integer",
    session: "bigint",
    name: "text",
    hash: "text",
    stored: "timestamptz",
  };
  const used = await sql<{ nth: number; hash: string | null }[]>`
    with record as (select * from ${unnested(sql, rows, types)})
    select nth, encode(sha256, 'hex') as hash from record
    join image_uses as used on used.session_id = session and used.name = record.name
      and case when hash is null then sent_at = stored else sha256 = decode(hash, 'hex') end
    union all
    select nth, null from record
    join images on images.session_id = session and images.name = record.name and stored_at = stored
    where hash is null and sha256 is null`;
  const hashes = new Map(used.map(({ nth, hash }) => [nth, hash]));
  return images.flatMap((record, nth) => {
    const hash = hashes.get(nth);
    return hash === undefined ? [] : [asUse(record, hash)];
  });
}

function asUse({ image, ...record }: FoundImage, sha256: string | null): FoundRecord {
  const { chunk_segments: chunks, chunk_offsets, chunk_lengths, ...use } = image;
  if (sha256 === null) {
    // A chunk in the same segment as the image's record was written before the segment had an id.
    const chunk_segments = chunks.map((chunk) => chunk ?? record.segmentId);
    return { ...record, body: pack({ ...use, chunk_segments, chunk_offsets, chunk_lengths }) };
  }
  const network = isHashed(image) ? image.network : null;
  const hashed: Omit<HashedImage, keyof Chunks> = { ...use, sha256, network };
  return { ...record, body: pack(hashed) };
}

type Chunks = Pick<ImageRecord, "chunk_segments" | "chunk_offsets" | "chunk_lengths">;
