import { type Queryable } from "../../platform/database/database.ts";
import { retryOutages } from "../../platform/database/retry-outages.ts";
import { arrayLiteral, unnested } from "../../platform/database/unnested.ts";
import { type ReferringRow, type TableName } from "./referring-rows.ts";

type Removed = { nth: number };
type Remove = (
  sql: Queryable,
  rows: ReturnType<typeof records>,
  gone: string,
) => Promise<Removed[]>;

const BATCH = { nth: "integer", session: "bigint", segment: "uuid", place: "bigint" } as const;
const IMAGE = {
  nth: "integer",
  session: "bigint",
  project: "integer",
  name: "text",
  hash: "text",
} as const;

/**
 * Deletes rows that name segments or archives that are gone, and returns those of them that did so until now: a
 * client may have sent a batch or an image again meanwhile. Rows are locked in the same order as by
 * those who write them, images before their uses, so that two processes cannot deadlock.
 */
export async function takeOut(
  sql: Queryable,
  table: TableName,
  rows: ReferringRow[],
  gone: Set<string>,
): Promise<ReferringRow[]> {
  const removed = await retryOutages(
    async () => await REMOVE[table](sql, records(rows), arrayLiteral(gone)),
  );
  const numbers = new Set(removed.map(({ nth }) => nth));
  return rows.filter((_row, nth) => numbers.has(nth));
}

const REMOVE: Record<TableName, Remove> = {
  batches: async (sql, rows) =>
    await sql<Removed[]>`
    with lost as materialized (
      select nth, session_id, segment_id, "offset"
      from ${unnested(sql, rows, BATCH)}
      join batches on (session_id, segment_id, "offset") = (record.session, record.segment, record.place)
      order by session_id, hash for update of batches
    )
    delete from batches using lost
    where (batches.session_id, batches.segment_id, batches."offset") = (lost.session_id, lost.segment_id, lost."offset")
    returning nth`,
  session_pieces: async (sql, rows) =>
    await sql<Removed[]>`
    with lost as materialized (
      select nth, session_id, archive_id
      from ${unnested(sql, rows, BATCH)}
      join session_pieces on (session_id, archive_id) = (record.session, record.segment)
      order by session_id, archive_id for update of session_pieces
    )
    delete from session_pieces as piece using lost
    where (piece.session_id, piece.archive_id) = (lost.session_id, lost.archive_id)
    returning nth`,
  image_uses: async (sql, rows, gone) =>
    await sql<Removed[]>`
    with lost as materialized (${lockedContents(sql, rows, gone)})
    delete from image_uses as used using lost
    where (used.session_id, used.name, used.sha256) = (lost.session, lost.name, lost.sha256)
    returning nth`,
  image_contents: async (sql, rows, gone) =>
    await sql<Removed[]>`
    with lost as materialized (${lockedContents(sql, rows, gone)})
    delete from image_contents as content using lost
    where (content.project_id, content.name, content.sha256) = (lost.project_id, lost.name, lost.sha256)
    returning nth`,
  images: async (sql, rows, gone) =>
    await sql<Removed[]>`
    with lost as materialized (
      select nth, images.project_id, images.name
      from ${unnested(sql, rows, IMAGE)}
      join images on (images.project_id, images.name) = (record.project, record.name)
      where chunk_segments && ${gone}::text::uuid[]
      order by images.project_id, images.name for update of images
    )
    delete from images using lost
    where (images.project_id, images.name) = (lost.project_id, lost.name)
    returning nth`,
};

/** The lock keeps others from adding uses until the statement ends. */
function lockedContents(sql: Queryable, rows: ReturnType<typeof records>, gone: string) {
  return sql`
    select nth, session, content.project_id, content.name, content.sha256
    from ${unnested(sql, rows, IMAGE)}
    join image_contents as content
      on (content.project_id, content.name, content.sha256) = (record.project, record.name, decode(record.hash, 'hex'))
    where (content.chunk_segments || content.archive_id) && ${gone}::text::uuid[]
    order by content.project_id, content.name, content.sha256 for update of content`;
}

function records(rows: ReferringRow[]) {
  return rows.map(({ sessionId, projectId, name, sha256, ids, offsets }, nth) => ({
    nth,
    session: sessionId,
    project: projectId,
    name,
    hash: sha256,
    segment: ids[0],
    place: offsets[0],
  }));
}
