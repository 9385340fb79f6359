import { type ArchiveName, archiveKey, dayOf } from "../../src/archives/archive-key.ts";
import { ArchiveWriter } from "../../src/archives/archive-writer.ts";
import { type ArchivedBatch, type Origin } from "../../src/archives/piece-index.ts";
import { byOrigin, readPiece } from "../../src/archives/piece-reader.ts";
import { PieceWriter } from "../../src/archives/piece-writer.ts";
import { type Archive, type Piece, insertArchives } from "../../src/archives/piece.ts";
import { FLAG } from "../../src/log/record.ts";
import { SegmentReader, batchBody } from "../../src/log/segment-reader.ts";
import { arrayLiteral } from "../../src/platform/database/unnested.ts";
import { Lost } from "../../src/platform/objects/read-faults.ts";
import { type TestApp, type TestSession } from "./app.ts";

type Target = Pick<TestApp, "sql" | "objects" | "project">;
type Session = Pick<TestSession, "sessionID">;

/** A batch, as an archive has it. */
export type Stored = { batch: ArchivedBatch; body: Uint8Array };
/** An archive with one piece. */
export type Made = { archive: Archive; piece: Piece; key: string };

/** Reads the batches that a session has in segments, in the order of their commits. */
export async function landingOf(app: Target, { sessionID }: Session): Promise<Stored[]> {
  const rows = await app.sql<(ArchivedBatch & { length: number })[]>`
    select segment_id as "segmentId", "offset", length, bytes, hash, flags, messages,
      (extract(epoch from received_at) * 1000)::float8 as "receivedAt",
      (extract(epoch from first_at) * 1000)::float8 as "firstAt", (extract(epoch from last_at) * 1000)::float8 as "lastAt"
    from batches where session_id = ${sessionID} order by segment_id, "offset"`;
  const stored: Stored[] = [];
  const reader = new SegmentReader(app.objects);
  for await (const { place, body } of reader.read(rows, { decode: batchBody })) {
    if (body instanceof Lost) throw body;
    const { length: _stored, ...batch } = place;
    const hash = BigInt.asUintN(64, batch.hash);
    stored.push({ batch: { ...batch, flags: batch.flags & ~FLAG.gzip, hash }, body });
  }
  return stored;
}

/** Reads the batches of an archive's piece. */
export async function batchesIn(app: Target, { archive, piece }: Made): Promise<Stored[]> {
  const stored: Stored[] = [];
  for await (const { batch, body } of readPiece(app.objects, archive, piece)) {
    if (body instanceof Lost) throw body;
    stored.push({ batch, body });
  }
  return stored;
}

/** Stores an archive of these batches, without its rows. `change` changes its bytes. */
export async function makeArchive(
  { objects, project }: Target,
  { sessionID }: Session,
  stored: Stored[],
  change: (bytes: Buffer, piece: Piece) => Uint8Array = (bytes) => bytes,
): Promise<Made> {
  const name: ArchiveName = {
    id: Bun.randomUUIDv7(),
    projectId: project.id,
    day: dayOf(Date.now()),
  };
  const head = { projectId: project.id, sessionId: BigInt(sessionID) };
  const sorted = stored.toSorted((a, b) => byOrigin(a.batch, b.batch));
  const sources = [...new Set(sorted.map(({ batch }) => batch.segmentId))];
  const writer = new ArchiveWriter(name.id, sources);
  const pieces = new PieceWriter(writer, { ...head, archiveId: name.id });
  const chunks = [writer.begin()];
  const row = { ...head, kind: "session", flags: 0, receivedAt: 0 } as const;
  chunks.push(...pieces.addRow(row, Buffer.from("row"), { segmentId: name.id, offset: 42 }));
  for (const { batch, body } of sorted) chunks.push(...pieces.addBatch(batch, body));
  const end = pieces.end();
  let step = end.next();
  for (; step.done !== true; step = end.next()) chunks.push(step.value);
  chunks.push(writer.end());
  const bytes = Buffer.concat(chunks);
  const key = archiveKey(name);
  const archive = {
    ...name,
    kind: "sessions",
    bytes: bytes.length,
    records: writer.records,
  } as const;
  await objects.put(key, change(bytes, step.value));
  return { archive, piece: step.value, key };
}

/** Change that happens at once: archives and rows of batches come or go. */
export type Swap = { made?: Made[]; gone?: Made[]; moved?: Origin[]; back?: string[] };

export async function swap(
  { sql }: Target,
  { sessionID }: Session,
  { made = [], gone = [], moved = [], back = [] }: Swap,
): Promise<void> {
  await sql.begin(async (transaction) => {
    const ids = gone.map(({ archive }) => archive.id);
    await transaction`delete from session_pieces where archive_id = any(${ids}::uuid[])`;
    await transaction`delete from archives where id = any(${ids}::uuid[])`;
    const archives = made.map((one) => one.archive);
    const pieces = made.map(({ piece }) => piece);
    if (made.length > 0) await insertArchives(transaction, archives, pieces);
    for (const { segmentId, offset } of moved)
      await transaction`
        delete from batches where (session_id, segment_id, "offset") = (${sessionID}, ${segmentId}, ${offset})`;
    if (back.length > 0)
      await transaction`
        insert into batches select stored.* from unnest(${arrayLiteral(back)}::text::text[]) as row,
          jsonb_populate_record(null::batches, row::jsonb) as stored`;
  });
}

/** Moves batches from segments into an archive: all, or those of these numbers. */
export async function archiveBatches(
  app: Target,
  session: Session,
  {
    which = () => true,
    keepsRows = false,
    change,
  }: {
    which?: (nth: number) => boolean;
    /** Leaves the rows of the batches, so that they are stored twice. */
    keepsRows?: boolean;
    change?: (bytes: Buffer, piece: Piece) => Uint8Array;
  } = {},
): Promise<Made> {
  const stored = (await landingOf(app, session)).filter((_, nth) => which(nth));
  const made = await makeArchive(app, session, stored, change);
  const moved = keepsRows ? [] : stored.map(({ batch }) => batch);
  await swap(app, session, { made: [made], moved });
  return made;
}

/** Merges archives of a session into one. The objects of the old ones stay. */
export async function merge(app: Target, session: Session, old: Made[]): Promise<Made> {
  const all = (await Promise.all(old.map(async (one) => await batchesIn(app, one)))).flat();
  const once = new Map(all.map((one) => [one.batch.hash, one]));
  const made = await makeArchive(app, session, [...once.values()]);
  await swap(app, session, { made: [made], gone: old });
  return made;
}

/** Returns the rows that a session has in the table of batches, as text. */
export async function rowsOf({ sql }: Target, { sessionID }: Session): Promise<string[]> {
  const rows = await sql<{ row: string }[]>`
    select to_jsonb(batches)::text as row from batches where session_id = ${sessionID} order by segment_id, "offset"`;
  return rows.map(({ row }) => row);
}
