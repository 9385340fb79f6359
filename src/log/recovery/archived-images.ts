import { type Queryable } from "../../platform/database/database.ts";
import { unnested } from "../../platform/database/unnested.ts";
import { CONTENT_FACTS, USE_TYPES, joinUse, takeEarlier } from "../image-index.ts";
import { type HashedImage } from "../stored-segment.ts";
import { anyUnreadable } from "../unreadable.ts";

type Chunks = "chunk_segments" | "chunk_offsets" | "chunk_lengths";

/** Row of an image in the piece of a session that sent it. */
export type ImageUse = Omit<HashedImage, Chunks>;

/** Row of `image_contents` in an archive of images, without places. */
export type ContentRecord = Omit<HashedImage, Chunks | "session_id"> & {
  network_session: string | null;
  shared: boolean;
};

/** A content in an archive, and the range of its bytes, from the first record's header. */
export type ArchivedContent = {
  row: ContentRecord;
  offset: number;
  length: number;
  /** False if some of its bytes cannot be read. */
  isWhole: boolean;
};

const CONTENT = { ...CONTENT_FACTS, place: "bigint", length: "bigint" } as const;

/** Inserts uses of images; the last one tells how the session sent the image. */
export async function restoreUses(sql: Queryable, uses: ImageUse[]): Promise<void> {
  const last = new Map<string, ImageUse>();
  for (const use of uses) {
    const key = `${use.session_id}/${use.sha256}/${use.name}`;
    if ((last.get(key)?.stored_at ?? "") <= use.stored_at) last.set(key, use);
  }
  if (last.size === 0) return;
  await sql`
    insert into image_uses as known (session_id, project_id, name, sha256, kind, content_type, sent_at)
    select session_id, project_id, name, decode(sha256, 'hex'), kind, content_type, stored_at
    from ${unnested(sql, [...last.values()], USE_TYPES)}
    order by session_id, name, sha256
    on conflict (session_id, name, sha256) do update set ${joinUse(sql)}`;
}

/**
 * Inserts the rows of archived contents. Existing rows get their places in the archive, unless they
 * have one in another archive that can be read; a damaged content replaces nothing.
 */
export async function restoreContents(
  sql: Queryable,
  archiveId: string,
  contents: ArchivedContent[],
  replaced: string[],
): Promise<void> {
  for (const isWhole of [true, false]) {
    const rows = contents.filter((content) => content.isWhole === isWhole);
    if (rows.length > 0) await insertContents(sql, archiveId, rows, isWhole ? replaced : undefined);
  }
}

async function insertContents(
  sql: Queryable,
  archiveId: string,
  contents: ArchivedContent[],
  replaced: string[] | undefined,
): Promise<void> {
  const rows = contents.map(({ row, offset, length }) => ({ ...row, place: offset, length }));
  await sql`
    insert into image_contents as known (project_id, name, sha256, kind, content_type, bytes, crc32, uses, stored_at, network,
      network_session, shared, chunk_segments, chunk_offsets, chunk_lengths, archive_id, archive_offset, archive_length)
    select distinct on (project_id, name, sha256) project_id, name, decode(sha256, 'hex'), kind, content_type, bytes, crc32, uses, stored_at,
      network, network_session, shared, '{}'::uuid[], '{}'::integer[], '{}'::integer[], ${archiveId}::uuid, place, length
    from ${unnested(sql, rows, CONTENT)}
    order by project_id, name, sha256
    on conflict (project_id, name, sha256) do ${replaced === undefined ? sql`nothing` : joinContent(sql, replaced)}`;
}

/** The record has all uses up to when the content was archived; there may be later ones. */
function joinContent(sql: Queryable, replaced: string[]) {
  const stays = sql`(known.archive_id is not null and known.archive_id <> all(${replaced}::uuid[])
    and exists (select from archives where archives.id = known.archive_id)
    and not ${anyUnreadable(sql, sql`array[known.archive_id]`)})`;
  const columns = sql`chunk_segments, chunk_offsets, chunk_lengths, archive_id, archive_offset, archive_length`;
  return sql`update set uses = greatest(known.uses, excluded.uses), shared = known.shared or excluded.shared,
      ${takeEarlier(sql)},
      (${columns}) = (
        select ${columns} from (values
          (${stays}, known.chunk_segments, known.chunk_offsets, known.chunk_lengths, known.archive_id, known.archive_offset, known.archive_length),
          (not ${stays}, excluded.chunk_segments, excluded.chunk_offsets, excluded.chunk_lengths, excluded.archive_id, excluded.archive_offset, excluded.archive_length)
        ) as copy (is_taken, ${columns}) where is_taken)`;
}
