import { RECORD_HEADER_BYTES, recordBody } from "../../src/log/record.ts";
import { SegmentReader, batchBody } from "../../src/log/segment-reader.ts";
import { type ArchiveName, archiveKey } from "../../src/archives/archive-key.ts";
import { type Origin } from "../../src/archives/piece-index.ts";
import { byOrigin, readPiece } from "../../src/archives/piece-reader.ts";
import { Lost } from "../../src/platform/objects/read-faults.ts";
import { type TestApp } from "./app.ts";
import { ingestTables, sessionFacts } from "./ingest-tables.ts";

type Target = Pick<TestApp, "sql" | "objects">;
type Copy = Origin & { hash: bigint; body: Uint8Array | Lost };
type PieceRow = ArchiveName & { start: number; length: number; indexStart: number };
type BatchRow = Origin & { length: number; bytes: number; flags: number; hash: bigint };

/** Returns everything that clients can read, wherever it is stored. */
export async function readState(app: Target) {
  const { projects, sessions, uses, contents } = await ingestTables(app.sql);
  const ids = await app.sql<{ id: bigint }[]>`select id from sessions order by id`;
  const batches = await Promise.all(ids.map(async ({ id }) => await batchesOf(app, id)));
  return {
    projects,
    sessions,
    facts: await sessionFacts(app.sql),
    batches,
    uses,
    contents: contents.map(({ row }) => withoutPlaces(row)),
    images: await imagesOf(app),
  };
}

/** Returns the hashes of a session's batches in the order of commits, and "lost" for lost ones. */
export async function batchesOf({ sql, objects }: Target, id: bigint): Promise<string[]> {
  const copies: Copy[] = [];
  const rows = await sql<BatchRow[]>`
    select segment_id as "segmentId", "offset", length, bytes, flags, hash from batches where session_id = ${id} order by 1, 2`;
  const decode = (body: Uint8Array, row: BatchRow) => batchBody(body, row);
  for await (const { place, body } of new SegmentReader(objects).read(rows, { decode }))
    copies.push({ ...place, hash: BigInt.asUintN(64, place.hash), body });
  const pieces = await sql<PieceRow[]>`
    select archives.id, project_id as "projectId", day::text, start::float8, length::float8, index_start::float8 as "indexStart"
    from session_pieces join archives on archives.id = archive_id where session_id = ${id}`;
  for (const piece of pieces)
    for await (const { batch, body } of readPiece(objects, piece, piece))
      copies.push({ ...batch, body: body instanceof Lost ? body : Buffer.from(body) });
  const seen = new Set<bigint>();
  const found: string[] = [];
  for (const { hash, body } of copies.toSorted(byOrigin)) {
    if (seen.has(hash)) continue;
    const isLost = body instanceof Lost;
    const isReadable = copies.some((copy) => copy.hash === hash && !(copy.body instanceof Lost));
    if (isLost && isReadable) continue;
    seen.add(hash);
    found.push(isLost ? "lost" : Bun.hash.xxHash3(body).toString(16));
  }
  return found;
}

/** Returns the bytes of all images by name and hash. */
async function imagesOf({ sql, objects }: Target): Promise<Record<string, string>> {
  type Image = ArchiveName & {
    key: string;
    ids: string[];
    offsets: number[];
    lengths: number[];
    start: number;
    bytes: number;
  };
  const rows = await sql<Image[]>`
    select name || ' ' || left(encode(sha256, 'hex'), 8) as key, chunk_segments as ids, chunk_offsets as offsets, chunk_lengths as lengths,
      archive_id as id, archives.project_id as "projectId", day::text, archive_offset::float8 as start, archive_length::float8 as bytes
    from image_contents left join archives on archives.id = archive_id order by 1`;
  const images: Record<string, string> = {};
  for (const { key, ids, offsets, lengths, ...row } of rows) {
    const hasher = new Bun.CryptoHasher("sha256");
    const places = ids.map((segmentId, nth) => ({
      segmentId,
      offset: offsets[nth] ?? 0,
      length: lengths[nth] ?? 0,
    }));
    for await (const { body } of new SegmentReader(objects).read(places))
      if (body instanceof Lost) throw body;
      else hasher.update(body);
    if (row.id !== null) {
      const range = await objects.read(archiveKey(row), row.start, row.start + row.bytes);
      for (let at = 0; at < range.length;) {
        const end = at + RECORD_HEADER_BYTES + Buffer.from(range).readUInt32LE(at);
        hasher.update(recordBody(range.subarray(at, end)));
        at = end;
      }
    }
    images[key] = hasher.digest("hex").slice(0, 8);
  }
  return images;
}

function withoutPlaces(row: Record<string, unknown>): Record<string, unknown> {
  const places = /^(?:chunk|archive)_/;
  return Object.fromEntries(Object.entries(row).filter(([name]) => !places.test(name)));
}
