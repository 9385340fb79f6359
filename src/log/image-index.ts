import { type Queryable } from "../platform/database/database.ts";
import { unnested } from "../platform/database/unnested.ts";
import { type HashedImage } from "./stored-segment.ts";
import { type Precedence, replacePlace } from "./unreadable.ts";

type Content = HashedImage & { network_session: string | null; shared: boolean };
/** Columns of uses, as `unnested` takes them. */
export const USE_TYPES = {
  session_id: "bigint",
  project_id: "integer",
  name: "text",
  sha256: "text",
  kind: "text",
  content_type: "text",
  stored_at: "timestamptz",
} as const;
/** Columns of contents without their places, as `unnested` takes them. */
export const CONTENT_FACTS = {
  project_id: "integer",
  name: "text",
  sha256: "text",
  kind: "text",
  content_type: "text",
  bytes: "bigint",
  crc32: "bigint",
  uses: "integer",
  stored_at: "timestamptz",
  network: "smallint",
  network_session: "bigint",
  shared: "boolean",
} as const;
const CONTENT_TYPES = {
  ...CONTENT_FACTS,
  // Array literals.
  chunk_segments: "text",
  chunk_offsets: "text",
  chunk_lengths: "text",
} as const;
type Records = { id: string; images: HashedImage[] }[];

/**
 * Returns the CTEs `contents` and `uses`, which insert the rows of hashed images; `added` tells
 * whether a row is new. Prefers copies without `unreadable` segments. Row locks are always taken in
 * the same order, contents before uses, so that concurrent processes cannot deadlock.
 */
export function insertImages(
  sql: Queryable,
  segments: Records,
  precedence: Precedence,
  unreadable = new Set<string>(),
) {
  const { contents, uses } = mergeImages(segments, unreadable);
  return sql`
    contents as (
      insert into image_contents as known (project_id, name, sha256, kind, content_type, bytes, crc32, uses, stored_at, network, network_session,
        chunk_segments, chunk_offsets, chunk_lengths, shared)
      select project_id, name, decode(sha256, 'hex'), kind, content_type, bytes, crc32, uses, stored_at, network, network_session,
        chunk_segments::uuid[], chunk_offsets::integer[], chunk_lengths::integer[], shared
      from ${unnested(sql, contents, CONTENT_TYPES)}
      order by project_id, name, sha256
      on conflict (project_id, name, sha256) do update set ${joinContent(sql, precedence)}
      returning xmax = 0 as added
    ), uses as (
      insert into image_uses as known (session_id, project_id, name, sha256, kind, content_type, sent_at)
      select session_id, project_id, name, decode(sha256, 'hex'), kind, content_type, stored_at
      from ${unnested(sql, uses, USE_TYPES)}
      where (select count(*) from contents) >= 0
      order by session_id, name, sha256
      on conflict (session_id, name, sha256) do update set ${joinUse(sql)}
      returning xmax = 0 as added
    )`;
}

/**
 * Merges into an existing use. A known project is never overwritten by 0, and the last use tells how
 * the session sent the image.
 */
export function joinUse(sql: Queryable) {
  return sql`project_id = coalesce(nullif(excluded.project_id, 0), known.project_id),
        (kind, content_type, sent_at) = (
          select kind, content_type, sent_at from (values
            (excluded.kind, excluded.content_type, excluded.sent_at), (known.kind, known.content_type, known.sent_at)
          ) as either (kind, content_type, sent_at) order by sent_at desc limit 1)`;
}

/**
 * Merges into an existing content, which becomes shared once another session sends it from another
 * network than the first.
 */
function joinContent(sql: Queryable, precedence: Precedence) {
  return sql`uses = known.uses + excluded.uses,
        shared = known.shared or excluded.shared
          or coalesce(known.network <> excluded.network and known.network_session <> excluded.network_session, false),
        ${replacePlace(sql, precedence)},
        ${precedence === "stays" ? keepFirst(sql) : takeEarlier(sql)}`;
}

function keepFirst(sql: Queryable) {
  return sql`network = coalesce(known.network, excluded.network),
        network_session = coalesce(known.network_session, excluded.network_session)`;
}

/** Takes what the content that was stored earlier says of its first sender. */
export function takeEarlier(sql: Queryable) {
  return sql`(network, network_session) = (
          select network, session from (values
            (known.network, known.network_session, known.stored_at), (excluded.network, excluded.network_session, excluded.stored_at)
          ) as either (network, session, stored_at) order by network is null, stored_at limit 1),
        (kind, content_type, stored_at) = (
          select kind, content_type, stored_at from (values
            (known.kind, known.content_type, known.stored_at), (excluded.kind, excluded.content_type, excluded.stored_at)
          ) as either (kind, content_type, stored_at) order by stored_at limit 1)`;
}

/**
 * Merges duplicates: a content or use can be recorded several times, and one statement can update a
 * row only once. Records of images that were in an archive already are only uses.
 */
function mergeImages(segments: Records, unreadable: Set<string>) {
  const contents = new Map<string, Content>();
  const uses = new Map<string, HashedImage>();
  for (const { id, images } of segments)
    for (const image of images) {
      if (hasPlace(image)) addContent(contents, contentOf(image, id), unreadable);
      const use = `${image.session_id}/${image.sha256}/${image.name}`;
      if ((uses.get(use)?.stored_at ?? "") <= image.stored_at) uses.set(use, image);
    }
  return { contents: [...contents.values()], uses: [...uses.values()] };
}

function hasPlace({ chunk_segments: chunks, bytes }: HashedImage): boolean {
  return chunks.length > 0 || bytes === 0;
}

function addContent(
  contents: Map<string, Content>,
  content: Content,
  unreadable: Set<string>,
): void {
  const key = `${content.project_id}/${content.sha256}/${content.name}`;
  const first = contents.get(key);
  if (first === undefined) contents.set(key, content);
  else {
    addUse(first, content);
    if (isLost(first, unreadable)) takeChunks(first, content);
  }
}

function contentOf(image: HashedImage, id: string): Content {
  return {
    ...image,
    // A chunk in the same segment as the image's record was written before the segment had an id.
    chunk_segments: image.chunk_segments.map((chunk) => chunk ?? id),
    network_session: image.network === null ? null : image.session_id,
    shared: false,
  };
}

function isLost({ chunk_segments: chunks }: HashedImage, unreadable: Set<string>): boolean {
  return chunks.some((chunk) => chunk !== null && unreadable.has(chunk));
}

function takeChunks(
  content: Content,
  { chunk_segments, chunk_offsets, chunk_lengths }: Content,
): void {
  Object.assign(content, { chunk_segments, chunk_offsets, chunk_lengths });
}

function addUse(content: Content, { uses, network, session_id: session }: HashedImage): void {
  content.uses += uses;
  if (network === null) return;
  content.shared ||=
    content.network !== null && content.network !== network && content.network_session !== session;
  content.network ??= network;
  content.network_session ??= session;
}
