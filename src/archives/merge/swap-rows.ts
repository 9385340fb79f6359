import { type Queryable } from "../../platform/database/database.ts";
import { unnested } from "../../platform/database/unnested.ts";
import { archiveKey } from "../archive-key.ts";
import { keepObjects, replaceObjects } from "../object-garbage.ts";
import { type Archive, insertArchives } from "../piece.ts";
import { Overtaken } from "../swap.ts";
import { type Merged, type MergedSession, type MovedContent } from "./records.ts";
import { type Input } from "./windows.ts";

// Rows of one statement at most.
const ROWS_PAGE = 5000;

/** Archives that were made of the inputs, and what was written to them. */
export type Written = Merged & { outputs: Archive[] };

/**
 * Replaces the rows of the inputs by those of the outputs, in a transaction. Throws Overtaken if the
 * inputs are no longer what was merged. What was erased meanwhile gets no row; its archive is
 * rewritten later.
 */
export async function swapMerged(
  sql: Queryable,
  inputs: Input[],
  { outputs, sessions, contents }: Written,
  graceS: number,
): Promise<void> {
  const ids = inputs.map(({ id }) => id);
  const { count } = await sql`
    select from archives where id = any(${ids}) order by id for update`;
  if (count !== ids.length) throw new Overtaken("an archive was replaced meanwhile");
  await keepObjects(sql, outputs.map(archiveKey));
  const erased = await takePieces(sql, ids, sessions);
  const lost = await moveContents(sql, ids, contents);
  await insertArchives(sql, outputs, []);
  const pieces = sessions.map(({ piece }) => piece).filter((piece) => !erased.has(piece));
  for (const page of pagesOf(pieces)) await insertArchives(sql, [], page);
  const unclean = [...Array.from(erased, ({ archiveId }) => archiveId), ...lost];
  await sql`update archives set has_erased = true where id = any(${[...new Set(unclean)]})`;
  await sql`delete from archives where id = any(${ids})`;
  const outputIds = outputs.map(({ id }) => id);
  await replaceObjects(sql, inputs.map(archiveKey), outputIds, graceS);
}

/** Deletes the inputs' pieces; returns those merged ones that all had lost their rows. */
async function takePieces(
  sql: Queryable,
  ids: string[],
  sessions: MergedSession[],
): Promise<Set<MergedSession["piece"]>> {
  const taken = new Map<bigint, number>();
  for (const id of ids) {
    const rows = await sql<{ sessionId: bigint }[]>`
      delete from session_pieces where archive_id = ${id} returning session_id as "sessionId"`;
    for (const { sessionId } of rows) taken.set(sessionId, (taken.get(sessionId) ?? 0) + 1);
  }
  const erased = new Set<MergedSession["piece"]>();
  for (const { piece, pieces } of sessions) {
    const count = taken.get(piece.sessionId);
    taken.delete(piece.sessionId);
    if (count === undefined) erased.add(piece);
    else if (count !== pieces) throw new Overtaken("a part of a session was deleted meanwhile");
  }
  if (taken.size > 0) throw new Overtaken("a session was added to an archive meanwhile");
  return erased;
}

/** Moves contents to their new places; returns the archives in which some have no row any more. */
async function moveContents(
  sql: Queryable,
  ids: string[],
  contents: MovedContent[],
): Promise<string[]> {
  // Locked in the order in which others write them, so that two processes cannot deadlock.
  await sql`
    select from image_contents where archive_id = any(${ids}) order by project_id, name, sha256 for update`;
  const lost: string[] = [];
  for (const page of pagesOf(contents)) {
    const types = { old_id: "uuid", old_start: "bigint", new_id: "uuid", new_start: "bigint" };
    const rows = page.map(({ from, to }) => ({
      old_id: from.archiveId,
      old_start: from.offset,
      new_id: to.archiveId,
      new_start: to.offset,
    }));
    const moved = await sql<{ id: string; start: number }[]>`
      update image_contents set archive_id = new_id, archive_offset = new_start from ${unnested(sql, rows, types)}
      where archive_id = old_id and archive_offset = old_start
      returning new_id as id, new_start::float8 as start`;
    const known = new Set(moved.map(({ id, start }) => `${id} ${start}`));
    const left = page.filter(({ to }) => !known.has(`${to.archiveId} ${to.offset}`));
    lost.push(...left.map(({ to }) => to.archiveId));
  }
  const [added] = await sql`select 1 from image_contents where archive_id = any(${ids}) limit 1`;
  if (added !== undefined) throw new Overtaken("an image was added to an archive meanwhile");
  return lost;
}

function* pagesOf<Row>(rows: Row[]): Generator<Row[]> {
  for (let at = 0; at < rows.length; at += ROWS_PAGE) yield rows.slice(at, at + ROWS_PAGE);
}
