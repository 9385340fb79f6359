import { type SegmentReader } from "../ingest/segment-reader.ts";
import { type Sql } from "../platform/database.ts";
import { AppError } from "../platform/errors.ts";
import { Lost } from "../platform/read-faults.ts";

export type ImageRow = {
  name: string;
  kind: "image" | "frames";
  contentType: string;
  bytes: number;
  /** of the whole file, in hex */
  crc32: string;
  storedAt: Date;
};
type ImageList = { images: ImageRow[]; nextCursor: string | null };
type Chunks = { segments: string[]; offsets: number[]; lengths: number[] };
export type StoredImage = ImageRow & Chunks;

/** The images that the session was the first to store, in order of name. */
export async function listImages(
  sql: Sql,
  sessionId: bigint,
  { cursor, limit }: { cursor?: string; limit: number },
): Promise<ImageList> {
  const rows = await sql<ImageRow[]>`
    select name, kind, content_type as "contentType", bytes::double precision as bytes, lpad(to_hex(crc32), 8, '0') as crc32, stored_at as "storedAt"
    from images where session_id = ${sessionId} ${cursor === undefined ? sql`` : sql`and name > ${parseCursor(cursor)}`}
    order by name limit ${limit + 1}`;
  const images = rows.slice(0, limit);
  const last = images.at(-1);
  return {
    images,
    nextCursor:
      rows.length > images.length && last !== undefined
        ? Buffer.from(last.name).toString("base64url")
        : null,
  };
}

export async function countImages(sql: Sql, sessionId: bigint): Promise<number> {
  const [row] = await sql<
    [{ count: number }]
  >`select count(*)::integer as count from images where session_id = ${sessionId}`;
  return row.count;
}

/** Throws 404. */
export async function findImage(sql: Sql, projectId: number, name: string): Promise<StoredImage> {
  const [image] = await sql<StoredImage[]>`
    select name, kind, content_type as "contentType", bytes::double precision as bytes, lpad(to_hex(crc32), 8, '0') as crc32, stored_at as "storedAt",
      chunk_segments as segments, chunk_offsets as offsets, chunk_lengths as lengths
    from images where project_id = ${projectId} and name = ${name}`;
  if (image === undefined) throw new AppError("not_found", "image not found");
  return image;
}

/** The image's bytes from `start` up to but without `end`. Throws Lost when one of its chunks is. */
export async function* imageBytes(
  reader: SegmentReader,
  image: Chunks & Pick<ImageRow, "name">,
  { start, end, signal }: { start: number; end: number; signal?: AbortSignal | undefined },
): AsyncGenerator<Uint8Array> {
  const options = { about: { image: image.name }, signal };
  for await (const { place, body } of reader.read(chunksWithin(image, start, end), options))
    if (body instanceof Lost) throw body;
    else yield body.subarray(Math.max(0, start - place.at), end - place.at);
}

function* chunksWithin({ segments, offsets, lengths }: Chunks, start: number, end: number) {
  let at = 0;
  for (const [index, segmentId] of segments.entries()) {
    const length = lengths[index] ?? 0;
    if (at + length > start && at < end)
      yield { segmentId, offset: offsets[index] ?? 0, length, at };
    at += length;
  }
}

function parseCursor(cursor: string): string {
  const name = Buffer.from(cursor, "base64url").toString();
  if (Buffer.from(name).toString("base64url") !== cursor || name.includes("\0"))
    throw new AppError("invalid", "cursor is not one that this route gave out");
  return name;
}
