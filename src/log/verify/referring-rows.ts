import type postgres from "postgres";

import { type Sql } from "../../platform/database/database.ts";
import { retryOutages } from "../../platform/database/retry-outages.ts";
import { arrayLiteral } from "../../platform/database/unnested.ts";
import { NO_ID } from "../recovery/reindex.ts";

/** A column of a primary key; `least` is a value below all others. */
type Column = { name: string; type: string; least: string };
type Table = { from: string; key: Column[]; columns: string; pageRows: number };
type Fragment = postgres.PendingQuery<postgres.Row[]>;

const SESSION = { name: "session_id", type: "bigint", least: "-1" };
const PROJECT = { name: "project_id", type: "integer", least: "-1" };
const NAME = { name: "name", type: "text", least: "" };
const HASH = { name: "sha256", type: "bytea", least: "" };
const CHUNKS = `chunk_segments as ids, chunk_offsets::float8[] as offsets, chunk_lengths::float8[] as lengths, false as archived`;
const PLACE = `case when archive_id is null then chunk_segments else array[archive_id] end as ids,
  case when archive_id is null then chunk_offsets::float8[] else array[archive_offset]::float8[] end as offsets,
  case when archive_id is null then chunk_lengths::float8[] else array[archive_length]::float8[] end as lengths,
  archive_id is not null as archived`;
const ONE = "1 as batches, null::float8 as index_start";
const IMAGE_ROWS = 500;

/** The tables whose rows name segments or archives: all get the same columns, and are read by primary key. */
export const TABLES = {
  batches: {
    from: "batches",
    key: [
      SESSION,
      { name: "segment_id", type: "uuid", least: NO_ID },
      { name: '"offset"', type: "integer", least: "-1" },
    ],
    columns: `session_id, null::integer as project_id, null::text as name, null::bytea as sha256, segment_id, "offset",
      array[segment_id] as ids, array["offset"]::float8[] as offsets, array[length]::float8[] as lengths, false as archived, ${ONE}`,
    pageRows: 5000,
  },
  session_pieces: {
    from: "session_pieces",
    key: [SESSION, { name: "archive_id", type: "uuid", least: NO_ID }],
    columns: `session_id, null::integer as project_id, null::text as name, null::bytea as sha256, archive_id,
      array[archive_id] as ids, array[start]::float8[] as offsets, array[length]::float8[] as lengths, true as archived,
      batches, index_start::float8 as index_start`,
    pageRows: 5000,
  },
  image_uses: {
    from: "image_uses left join image_contents using (project_id, name, sha256)",
    key: [SESSION, NAME, HASH],
    columns: `session_id, project_id, name, sha256, ${PLACE}, ${ONE}`,
    pageRows: IMAGE_ROWS,
  },
  image_contents: {
    from: "image_contents",
    key: [PROJECT, NAME, HASH],
    columns: `null::bigint as session_id, project_id, name, sha256, ${PLACE}, ${ONE}`,
    pageRows: IMAGE_ROWS,
  },
  images: {
    from: "images",
    key: [PROJECT, NAME],
    columns: `session_id, project_id, name, sha256, ${CHUNKS}, ${ONE}`,
    pageRows: IMAGE_ROWS,
  },
} satisfies Record<string, Table>;

export type TableName = keyof typeof TABLES;
/** Restricts a table to the rows of these sessions, or of this project. */
export type Scope = { sessions?: bigint[] | undefined; project?: number | undefined };

/** A row that names segments or an archive, and where in them its records are. */
export type ReferringRow = {
  sessionId: bigint | null;
  /** null: unknown; 0: an image of no known project */
  projectId: number | null;
  name: string | null;
  sha256: string | null;
  ids: string[];
  offsets: number[];
  lengths: number[];
  archived: boolean;
  /** Number of batches; of a piece also where its indexes begin. */
  batches: number;
  indexStart: number | null;
};
/** A segment with a row; `unreadable` if it is marked so. */
export type IndexedSegment = { id: string; bytes: number; unreadable: boolean };
/** Rows that were found in a page, and how many rows and batches or images the page has. */
export type Page<Row> = { found: Row[]; rows: number; counted: number };

/** Yields the rows that name a segment or archive without a row, or one that is marked as unreadable. */
export function suspectRows(
  sql: Sql,
  table: TableName,
  scope: Scope,
): AsyncGenerator<Page<ReferringRow>> {
  return overPages<ReferringRow>(
    sql,
    table,
    scope,
    sql`
    select true as found, nth, session_id as "sessionId", name, encode(sha256, 'hex') as sha256, ids, offsets, lengths,
      archived, batches, index_start as "indexStart",
      coalesce(project_id, (select sessions.project_id from sessions where sessions.id = page.session_id)) as "projectId"
    from page where exists (
      select from unnest(ids) as named (id)
      where exists (select from unreadable_segments where segment_id = named.id)
        or not archived and not exists (select from segments where segments.id = named.id and not deleted)
        or archived and not exists (select from archives where archives.id = named.id)
    )`,
  );
}

/** Yields the segments with rows that are named, each once in a page. */
export function namedSegments(
  sql: Sql,
  table: TableName,
  scope: Scope,
): AsyncGenerator<Page<IndexedSegment>> {
  return overPages<IndexedSegment>(
    sql,
    table,
    scope,
    sql`
    select true as found, row_number() over (order by segments.id) as nth, segments.id, bytes, segment_id is not null as unreadable
    from (select distinct unnest(ids) as id from page) as named join segments using (id)
    left join unreadable_segments on segment_id = segments.id
    where not deleted`,
  );
}

/** Walks a table in pages of limited size, whatever is found; `found` selects from `page`. */
async function* overPages<Row>(
  sql: Sql,
  table: TableName,
  { sessions, project }: Scope,
  found: Fragment,
): AsyncGenerator<Page<Row>> {
  const { from, key, columns, pageRows }: Table = TABLES[table];
  const names = key.map(({ name }) => name);
  const keys = sql.unsafe(names.join());
  const place = sql.unsafe(names.map((name) => `${name}::text`).join());
  const least = key.map((column) => column.least);
  for (let after: string[] | undefined = least; after !== undefined;) {
    const bounds: string[] = after;
    const values = key.map(
      ({ type }, nth) =>
        sql`${sql.unsafe(nth === 0 ? "" : ",")} ${bounds[nth] ?? ""}::text::${sql.unsafe(type)}`,
    );
    const rows = await retryOutages(
      async () =>
        await sql<({ at: string[]; rows: number; counted: number; found: true | null } & Row)[]>`
        with page as materialized (
          select ${sql.unsafe(columns)}, row_number() over (order by ${keys}) as nth
          from ${sql.unsafe(from)}
          where (${keys}) > (${values})
            ${sessions === undefined ? sql`` : sql`and session_id = any(${arrayLiteral(sessions)}::text::bigint[])`}
            ${project === undefined ? sql`` : sql`and project_id = ${project}`}
          order by ${keys} limit ${pageRows}
        ), last as (
          select array[${place}] as at, nth::integer as rows, (select sum(page.batches) from page)::float8 as counted
          from page order by nth desc limit 1
        )
        select last.at, last.rows, last.counted, found.* from last left join (${found}) as found on true order by found.nth`,
    );
    const [last] = rows;
    if (last === undefined) return;
    yield {
      found: rows.filter((row) => row.found !== null),
      rows: last.rows,
      counted: last.counted,
    };
    after = last.rows < pageRows ? undefined : last.at;
  }
}
