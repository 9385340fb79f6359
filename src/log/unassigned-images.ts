import { type Queryable } from "../platform/database/database.ts";
import { type Footer } from "./footer.ts";
import { COLUMNS } from "./stored-segment.ts";
import { PLACE, replacePlace } from "./unreadable.ts";

const CONTENT = `name, sha256, kind, content_type, bytes, crc32, uses, stored_at, network, network_session, shared, ${PLACE}`;

/** Returns the sessions of images that arrived while the session's project was unknown. */
export function unassignedOf({ entries }: Footer): bigint[] {
  return entries
    .filter(({ kind, projectId }) => kind === "image" && projectId === 0)
    .map(({ sessionId }) => sessionId);
}

/**
 * Assigns the sessions' images that have no project to the sessions' projects, as far as these are
 * known. Must run in a transaction. Several sessions may share such a content: it is deleted once
 * the last of them has a project.
 */
export async function moveImages(sql: Queryable, sessionIds: (bigint | string)[]): Promise<void> {
  if (sessionIds.length === 0) return;
  const ids = `{${sessionIds.join()}}`;
  await moveUnhashed(sql, ids);
  // The row locks keep others from adding uses of these contents until the transaction ends.
  const contents = await sql<{ name: string; sha256: Uint8Array }[]>`
    select name, sha256 from image_contents
    where project_id = 0 and (name, sha256) in (
      select name, sha256 from image_uses where project_id = 0 and session_id = any(${ids}::text::bigint[])
    )
    order by name, sha256 for update`;
  if (contents.length === 0) return;
  const names = contents.map(({ name }) => name);
  const hashes = contents.map(({ sha256 }) => Buffer.from(sha256).toString("hex"));
  const locked = sql`(select name, decode(hex, 'hex') from unnest(${names}::text[], ${hashes}::text[]) as locked (name, hex))`;
  await sql`
    with homes as (
      select distinct sessions.project_id as home, name, sha256
      from image_uses join sessions on sessions.id = session_id
      where image_uses.project_id = 0 and session_id = any(${ids}::text::bigint[])
        and sessions.project_id is not null and (name, sha256) in ${locked}
    )
    insert into image_contents as known (project_id, ${sql.unsafe(CONTENT)})
    select home, ${sql.unsafe(CONTENT)} from image_contents join homes using (name, sha256) where project_id = 0
    order by home, name, sha256
    on conflict (project_id, name, sha256) do update set uses = known.uses + excluded.uses,
      ${replacePlace(sql, "stays")},
      shared = known.shared or excluded.shared
        or coalesce(known.network <> excluded.network and known.network_session <> excluded.network_session, false)`;
  await sql`
    update image_uses set project_id = sessions.project_id from sessions
    where sessions.id = session_id and image_uses.project_id = 0 and session_id = any(${ids}::text::bigint[])
      and sessions.project_id is not null and (name, sha256) in ${locked}`;
  await sql`
    delete from image_contents where project_id = 0 and (name, sha256) in ${locked}
      and not exists (
        select from image_uses as others
        where others.project_id = 0 and others.name = image_contents.name and others.sha256 = image_contents.sha256
      )`;
}

/**
 * Moves images without a hash. If the project already has the name, the row stays until its hash
 * tells the two apart.
 */
async function moveUnhashed(sql: Queryable, ids: string): Promise<void> {
  await sql`
    with moved as (
      delete from images using sessions
      where images.project_id = 0 and images.session_id = any(${ids}::text::bigint[]) and images.sha256 is null
        and sessions.id = images.session_id and sessions.project_id is not null
        and not exists (
          select from images as others where others.project_id = sessions.project_id and others.name = images.name
        )
      returning sessions.project_id as home, images.*
    )
    insert into images (project_id, ${sql.unsafe(COLUMNS.image)})
    select home, ${sql.unsafe(COLUMNS.image)} from moved
    order by home, name
    on conflict (project_id, name) do update set uses = images.uses + excluded.uses`;
}
