import pLimit from "p-limit";

import { isLost, openChecked } from "../log/checked-segment.ts";
import { type SegmentEntry } from "../log/record.ts";
import { segmentKey } from "../log/segment.ts";
import { isRowKind } from "../log/stored-segment.ts";
import { markUnreadable } from "../log/unreadable.ts";
import { type Sql } from "../platform/database/database.ts";
import { arrayLiteral } from "../platform/database/unnested.ts";
import { type Log } from "../platform/logger.ts";
import { ObjectMissing, type ObjectStore } from "../platform/objects/objects.ts";

const LEASE_S = 60;
const RENEW_MS = 10_000;
export const SEGMENTS_MAX = 1000;
// Bytes of segments held at once, unless a single one is longer, and their records.
const BYTES_MAX = 64 * 2 ** 20;
const RECORDS_MAX = 20_000;
// Less than this waits, so that a quiet server makes few archives, ...
const BYTES_MIN = 32 * 2 ** 20;
// ... but not for longer than this.
const WAIT_S_MAX = 60;
const READS_AT_A_TIME = 4;

type Leased = { id: string; bytes: number };
type Deps = { sql: Sql; objects: ObjectStore; log: Log };

export type FoundRecord = { segmentId: string; entry: SegmentEntry; body: Uint8Array };

/** Segment whose records were read, apart from chunks and those that are damaged. */
export type ReadSegment = {
  id: string;
  bytes: number;
  /** Sessions that have batches in it, also unreadable ones. */
  sessions: Set<bigint>;
  lacksRows: boolean;
  records: FoundRecord[];
};

/**
 * Returns whether a serving process that does not read archives ran within the last ten minutes: a
 * version of before writes no reader, or leaves that of the process before.
 */
export async function isOldVersionServing(sql: Sql): Promise<boolean> {
  const [row] = await sql`
    select 1 from session_worker_leases
    where leased_until > now() - interval '9 minutes' and archive_reader is distinct from holder limit 1`;
  return row !== undefined;
}

/**
 * Leases the next segments that are older than `afterS`, for a minute, so that no other process
 * reads them. Returns none if they are too few to be worth a step, and none of them is old.
 */
export async function leaseSegments(
  sql: Sql,
  { afterS, segmentsMax }: { afterS: number; segmentsMax: number },
): Promise<Leased[]> {
  const waitS = 2 * afterS + Math.min(afterS, WAIT_S_MAX);
  const leased = await sql<Leased[]>`
    with due as (
      select id, bytes, records, created_at from segments
      where archived_at is null and not deleted and facts_written
        and created_at < now() - ${afterS} * interval '1 second'
        and (leased_until is null or leased_until < now())
        and not exists (select from unreadable_segments where segment_id = id)
      order by id limit ${segmentsMax} for no key update of segments skip locked
    ), counted as (
      select *, row_number() over ordered as nth, sum(bytes) over ordered as sum_bytes, sum(records) over ordered as sum_records
      from due window ordered as (order by id)
    ), taken as materialized (
      select * from counted where nth = 1 or (sum_bytes <= ${BYTES_MAX} and sum_records <= ${RECORDS_MAX})
    ), total as (
      select count(*) = ${segmentsMax} or sum(bytes) >= ${BYTES_MIN} or sum(records) >= ${RECORDS_MAX / 2}
        or min(created_at) < now() - ${waitS} * interval '1 second' as is_enough
      from taken
    )
    update segments set leased_until = now() + ${LEASE_S} * interval '1 second'
    from taken, total where segments.id = taken.id and is_enough
    returning segments.id, segments.bytes`;
  return leased.toSorted((a, b) => (a.id < b.id ? -1 : 1));
}

/** Renews the lease of segments until it is disposed. */
export function keepLease({ sql, log }: Omit<Deps, "objects">, leased: Leased[]): Disposable {
  const ids = arrayLiteral(leased.map(({ id }) => id));
  const renewing = setInterval(() => {
    sql`
      update segments set leased_until = now() + ${LEASE_S} * interval '1 second'
      where id = any(${ids}::text::uuid[]) and archived_at is null`.catch((error: unknown) =>
      log.warn({ err: error }, "the lease of segments was not renewed"),
    );
  }, RENEW_MS);
  return { [Symbol.dispose]: () => clearInterval(renewing) };
}

/** Gives segments back, so that another process can take them at once. */
export async function endLease(sql: Sql, leased: Leased[]): Promise<void> {
  const ids = arrayLiteral(leased.map(({ id }) => id));
  await sql`update segments set leased_until = null where id = any(${ids}::text::uuid[])`;
}

/**
 * Reads and verifies segments, each of them once. Marks those of which a record is lost, and leaves
 * out those that cannot be read at all.
 */
export async function readSegments(
  deps: Deps,
  leased: Leased[],
  signal: AbortSignal,
): Promise<ReadSegment[]> {
  const limit = pLimit(READS_AT_A_TIME);
  const read = await limit.map(leased, async (segment) => {
    signal.throwIfAborted();
    return await readSegment(deps, segment);
  });
  return read.filter((segment) => segment !== undefined);
}

async function readSegment(
  { sql, objects, log }: Deps,
  { id, bytes }: Leased,
): Promise<ReadSegment | undefined> {
  const key = segmentKey(id);
  try {
    const { footer, records } = await openChecked(objects, { key, bytes });
    const wanted = footer.entries.filter(({ kind }) => kind !== "chunk");
    const found: FoundRecord[] = [];
    let lacksRows = false;
    for await (const { entry, body } of records(wanted))
      if (body !== undefined) found.push({ segmentId: id, entry, body });
      else lacksRows ||= isRowKind(entry.kind);
    if (found.length < wanted.length) {
      const damaged = wanted.length - found.length;
      log.error({ key, damaged, records: footer.entries.length }, "records cannot be archived");
      await markUnreadable(sql, [id]);
    }
    return { id, bytes, sessions: sessionsOf(footer.entries), lacksRows, records: found };
  } catch (error) {
    if (!isLost(error)) throw error;
    // Another process may have archived and dropped it meanwhile.
    if (error instanceof ObjectMissing && !(await isLanding(sql, id))) return undefined;
    log.error({ err: error, key }, "a segment cannot be archived");
    await markUnreadable(sql, [id]);
    return undefined;
  }
}

/** Returns the sessions that have batches among the records. */
export function sessionsOf(entries: SegmentEntry[]): Set<bigint> {
  const batches = entries.filter(({ kind }) => kind === "batch");
  return new Set(batches.map(({ sessionId }) => sessionId));
}

async function isLanding(sql: Sql, id: string): Promise<boolean> {
  const [row] = await sql`
    select 1 from segments where id = ${id} and not deleted and archived_at is null`;
  return row !== undefined;
}
