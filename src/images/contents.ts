import { type Sql } from "../platform/database/database.ts";
import { anyUnreadable } from "../log/unreadable.ts";
import { unavailable } from "../platform/errors.ts";

/** Identifies the bytes of a file: length, CRC-32 and SHA-256. */
export type Digest = { bytes: number; crc32: number; sha256: string };

/** An image as it was sent: the columns of its record, except where its bytes are stored. */
export type SentImage = Digest & {
  project_id: number;
  name: string;
  session_id: string;
  kind: "image" | "frames";
  content_type: string;
  uses: number;
  network: number | null;
  stored_at: string;
};

export type Chunks = {
  chunk_segments: string[];
  chunk_offsets: number[];
  chunk_lengths: number[];
};

/**
 * Adds known contents to the session, and returns the chunks of each: none if it is in an archive,
 * whose own record names its place, because merges change that. Throws 503 if one was deleted
 * meanwhile, or found to be lost.
 */
export async function useContents(
  sql: Sql,
  projectId: number,
  images: SentImage[],
): Promise<Chunks[]> {
  const rows = await sql<(Chunks & { key: string })[]>`
    with sent as materialized (
      select decode(sha256, 'hex') as hash, * from jsonb_to_recordset(${JSON.stringify(images)}::text::jsonb) as record (
        name text, sha256 text, session_id bigint, kind text, content_type text, uses integer, network smallint, stored_at timestamptz)
    ), locked as (
      select content.name, content.sha256 from image_contents as content
      join sent on content.project_id = ${projectId} and content.name = sent.name and content.sha256 = sent.hash
      where not ${anyUnreadable(sql, sql`content.chunk_segments || content.archive_id`)}
      -- Locks in the same order as indexing: otherwise two forms could deadlock over the same names.
      order by content.name, content.sha256 for no key update of content
    ), counted as (
      update image_contents as content set uses = content.uses + sent.uses,
        network = coalesce(content.network, sent.network),
        network_session = case when content.network is null and sent.network is not null then sent.session_id else content.network_session end,
        shared = content.shared or coalesce(content.network <> sent.network and content.network_session <> sent.session_id, false)
      from locked join sent on sent.name = locked.name and sent.hash = locked.sha256
      where content.project_id = ${projectId} and content.name = locked.name and content.sha256 = locked.sha256
      returning content.*
    ), used as (
      insert into image_uses as known (session_id, project_id, name, sha256, kind, content_type, sent_at)
      select session_id, ${projectId}, sent.name, sent.hash, sent.kind, sent.content_type, sent.stored_at
      from sent join counted on sent.name = counted.name and sent.hash = counted.sha256
      order by session_id, sent.name, sent.hash
      on conflict (session_id, name, sha256) do update set project_id = excluded.project_id, kind = excluded.kind,
        content_type = excluded.content_type, sent_at = greatest(known.sent_at, excluded.sent_at)
    )
    select encode(sha256, 'hex') || name as key, chunk_segments, chunk_offsets, chunk_lengths from counted`;
  const byKey = new Map(rows.map(({ key, ...chunks }) => [key, chunks]));
  return images.map(({ sha256, name }) => {
    const chunks = byKey.get(sha256 + name);
    if (chunks === undefined) throw unavailable("an image could not be stored, send it again", 1);
    return chunks;
  });
}
