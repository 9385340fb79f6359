import { type ImagePlace, chunksWithin } from "../archives/image-archive.ts";
import { type SegmentReader } from "../log/segment-reader.ts";
import { type Sql } from "../platform/database/database.ts";
import { AppError } from "../platform/errors.ts";
import { Lost } from "../platform/objects/read-faults.ts";

export type ImageRow = {
  name: string;
  kind: "image" | "frames";
  contentType: string;
  bytes: number;
  /** CRC-32 of the whole file, in hex. */
  crc32: string;
  /** SHA-256 in hex; null for an image of the previous version that is not hashed yet. */
  sha256: string | null;
  storedAt: Date;
};
type ImageList = { images: ImageRow[]; nextCursor: string | null };
type Identity = { projectId: number } & Pick<ImageRow, "name" | "bytes" | "sha256">;
export type StoredImage = ImageRow & Identity & ImagePlace;

/** Lists the images that the session sent in order of name, each content of a name once. */
export async function listImages(
  sql: Sql,
  sessionId: bigint,
  { cursor, limit }: { cursor?: string; limit: number },
): Promise<ImageList> {
  const after = cursor === undefined ? undefined : parseCursor(cursor);
  const isAfter =
    after === undefined
      ? sql``
      : after.sha256 === undefined
        ? sql`and name > ${after.name}`
        : sql`and (name, sha256) > (${after.name}, decode(${after.sha256}, 'hex'))`;
  const rows = await sql<ImageRow[]>`
    with listed as (
      (
        select name, sha256, used.kind, used.content_type, content.bytes, content.crc32, used.sent_at as stored_at
        from image_uses as used join image_contents as content using (project_id, name, sha256)
        where session_id = ${sessionId} ${isAfter}
        order by name, sha256 limit ${limit + 1}
      ) union all (
        select * from (
          select name, ''::bytea as sha256, kind, content_type, bytes, crc32, stored_at from images where ${unhashedOf(sql, sessionId)}
        ) as unhashed
        where true ${isAfter}
        order by name limit ${limit + 1}
      )
    )
    select name, kind, content_type as "contentType", bytes::double precision as bytes, lpad(to_hex(crc32), 8, '0') as crc32,
      nullif(encode(listed.sha256, 'hex'), '') as sha256, stored_at as "storedAt"
    from listed order by listed.name, listed.sha256 limit ${limit + 1}`;
  const images = rows.slice(0, limit);
  const [last, next] = [images.at(-1), rows[limit]];
  return {
    images,
    nextCursor: last === undefined || next === undefined ? null : cursorBetween(last, next),
  };
}

export async function countImages(sql: Sql, sessionId: bigint): Promise<number> {
  const [row] = await sql<[{ count: number }]>`
    select (
      (select count(*) from image_uses join image_contents using (project_id, name, sha256) where session_id = ${sessionId})
      + (select count(*) from images where ${unhashedOf(sql, sessionId)})
    )::integer as count`;
  return row.count;
}

/** Selects one of the images of a name: by the session that sent it, or by its hash. */
export type Selection = { session?: bigint | undefined; sha256?: string | undefined };

/**
 * Returns the first image of that name, the one that a session sent last, or the one with that
 * hash. Throws 404.
 */
export async function findImage(
  sql: Sql,
  projectId: number,
  name: string,
  { session, sha256 }: Selection = {},
): Promise<StoredImage> {
  const hash =
    sha256 === undefined ? sql`` : sql`and sha256 = decode(${sha256.toLowerCase()}, 'hex')`;
  const place = sql`chunk_segments, chunk_offsets, chunk_lengths, archive_id, archive_offset`;
  const hashed =
    session === undefined
      ? sql`
        select name, sha256, kind, content_type, bytes, crc32, stored_at, ${place}
        from image_contents where project_id = ${projectId} and name = ${name} ${hash}
        order by stored_at, sha256 limit 1`
      : sql`
        select name, sha256, used.kind, used.content_type, bytes, crc32, sent_at as stored_at, ${place}
        from image_uses as used join image_contents using (project_id, name, sha256)
        where session_id = ${session} and project_id = ${projectId} and name = ${name} ${hash}
        order by sent_at desc, sha256 limit 1`;
  const [image] = await sql<StoredImage[]>`
    select ${projectId}::integer as "projectId", name, kind, content_type as "contentType", bytes::double precision as bytes,
      lpad(to_hex(crc32), 8, '0') as crc32, encode(sha256, 'hex') as sha256, stored_at as "storedAt", ${placeOf(sql)}
    from (
      (${hashed}) union all (
        select name, null, kind, content_type, bytes, crc32, stored_at, chunk_segments, chunk_offsets, chunk_lengths, null, null
        from images where project_id = ${projectId} and name = ${name} and sha256 is null
          ${session === undefined ? sql`` : sql`and session_id = ${session}`} and ${sha256 === undefined}
      )
    ) as image
    order by stored_at ${session === undefined ? sql`` : sql`desc`} limit 1`;
  if (image === undefined) throw new AppError("not_found", "image not found");
  return image;
}

/**
 * Selects a session's images without a hash (stored by the previous version), except those that
 * equal a hashed one in length and CRC-32.
 */
function unhashedOf(sql: Sql, sessionId: bigint) {
  return sql`session_id = ${sessionId} and sha256 is null and not exists (
      select from image_uses as used
      join image_contents as content on (content.project_id, content.name, content.sha256) = (used.project_id, used.name, used.sha256)
      where used.session_id = images.session_id and used.name = images.name
        and (content.bytes, content.crc32) = (images.bytes, images.crc32)
    )`;
}

/** Selects a place. An archive that has no row is read under a key that no object has. */
function placeOf(sql: Sql) {
  return sql`chunk_segments as segments, chunk_offsets as offsets, chunk_lengths as lengths, case when archive_id is not null then (
      select json_build_object('id', archive_id, 'offset', archive_offset,
        'projectId', coalesce(max(archives.project_id), 0), 'day', coalesce(max(day), '1970-01-01'))
      from archives where archives.id = archive_id
    ) end as archive`;
}

/** Returns where the bytes are now, or undefined if they are not elsewhere. */
async function findMoved(
  sql: Sql,
  { projectId, name, sha256, segments, archive }: Identity & ImagePlace,
): Promise<ImagePlace | undefined> {
  if (sha256 === null) return undefined;
  const [place] = await sql<ImagePlace[]>`
    select ${placeOf(sql)} from image_contents
    where project_id = ${projectId} and name = ${name} and sha256 = decode(${sha256}, 'hex')`;
  const isSame =
    place === undefined ||
    (archive?.id === place.archive?.id && Bun.deepEquals(segments, place.segments));
  return isSame ? undefined : place;
}

/**
 * Yields the image's bytes from `start` up to but without `end`. If a part is not where it was,
 * reads on where it is now. Throws Lost if it is lost.
 */
export async function* imageBytes(
  { sql, reader }: { sql: Sql; reader: SegmentReader },
  image: Identity & ImagePlace,
  { start, end, signal }: { start: number; end: number; signal?: AbortSignal | undefined },
): AsyncGenerator<Uint8Array> {
  const about = { image: image.name };
  let at = start;
  for (let current: (Identity & ImagePlace) | undefined = image; current !== undefined;) {
    let lost: Lost | undefined;
    const chunks = chunksWithin(current, at, end);
    for await (const { place, body } of reader.read(chunks, { about, signal, isSilent: true })) {
      if (body instanceof Lost) {
        lost = body;
        break;
      }
      const piece = body.subarray(Math.max(0, at - place.at), end - place.at);
      at += piece.length;
      yield piece;
    }
    if (lost === undefined) return;
    const moved: ImagePlace | undefined = await findMoved(sql, current);
    if (moved === undefined) {
      reader.report(lost, about);
      throw lost;
    }
    current = { ...image, ...moved };
  }
}

/**
 * Encodes a page cursor: the name, which the previous version understands, too, plus the hash if
 * the page ends between two contents of one name.
 */
function cursorBetween(last: ImageRow, next: ImageRow): string {
  const hash = last.name === next.name ? `\0${last.sha256 ?? ""}` : "";
  return Buffer.from(last.name + hash).toString("base64url");
}

function parseCursor(cursor: string): { name: string; sha256: string | undefined } {
  const text = Buffer.from(cursor, "base64url").toString();
  const [name = "", sha256, ...others] = text.split("\0");
  const isHash = sha256 === undefined || /^(?:[\da-f]{64})?$/.test(sha256);
  if (
    Buffer.from(text).toString("base64url") !== cursor ||
    !isHash ||
    name === "" ||
    others.length > 0
  )
    throw new AppError("invalid", "cursor is not one that this route gave out");
  return { name, sha256 };
}
