import { unpack } from "msgpackr";
import { pino } from "pino";

import { archiveKey, archiveNameOf } from "../../src/archives/archive-key.ts";
import { Archiver, type ArchiverDeps, type ArchiverOptions } from "../../src/archives/archiver.ts";
import { Drop, type DropOptions } from "../../src/archives/drop.ts";
import { ObjectGarbage } from "../../src/archives/object-garbage.ts";
import {
  type ArchivedBatch,
  type Index,
  unpackFrame,
  unpackIndex,
} from "../../src/archives/piece-index.ts";
import { RECORD_HEADER_BYTES, recordBody } from "../../src/log/record.ts";
import { segmentKey } from "../../src/log/segment.ts";
import { readEndOf } from "../../src/log/stored-segment.ts";
import { SYSTEM_CLOCK } from "../../src/platform/clock.ts";
import { WorkMetrics } from "../../src/platform/telemetry/work-metrics.ts";
import { type TestApp, type TestSession } from "./app.ts";
import { eventually } from "./eventually.ts";
import { sessionFacts } from "./ingest-tables.ts";

const LOG = pino({ level: "silent" });
const DAY_S = 86_400;

type Target = Pick<TestApp, "sql" | "objects">;
type Parts = Partial<ArchiverDeps & ArchiverOptions>;

/** Makes an archiver that takes whatever is there, however young and little it is. */
export function archiverOf(app: Target, parts: Parts = {}): Archiver {
  const { sql, objects, log = LOG, clock = SYSTEM_CLOCK, ...others } = { ...app, ...parts };
  const { metrics = new WorkMetrics(), garbage = garbageOf({ sql, objects }) } = others;
  const { afterS = 0, everyMs = 20, at } = others;
  return new Archiver(
    { sql, objects, garbage, clock, metrics, log },
    { afterS, everyMs, ...(at && { at }) },
  );
}

export function garbageOf({ sql, objects }: Target, log = LOG): ObjectGarbage {
  return new ObjectGarbage({ sql, objects, log }, { everyMs: 20 });
}

/** Deletes all objects that are due. */
export async function sweep(app: Target, log = LOG): Promise<void> {
  const ending = new AbortController();
  const running = garbageOf(app, log).run(ending.signal);
  await eventually("nothing is due", async () => {
    const due = await app.sql`select from object_garbage where due_at <= now()`;
    return due.length === 0;
  });
  ending.abort();
  await running;
}

/** Archives everything that is there, once all facts are written, as without them nothing is due. */
export async function archiveAll(app: Target, parts: Parts = {}): Promise<void> {
  await sessionFacts(app.sql);
  const archiver = archiverOf(app, parts);
  while (await archiver.step());
}

/** Deletes what was archived before now, with chunks of images as if it had been a day ago. */
export async function dropAll({ sql, objects }: Target, options: Partial<DropOptions> = {}) {
  const drop = new Drop({ sql, objects, log: LOG }, { feedS: 0, everyMs: 20, ...options });
  return await drop.look();
}

/** Makes everything look as if it had been archived that much earlier. */
export async function passDays({ sql }: Target, days: number): Promise<void> {
  await sql`update segments set archived_at = archived_at - ${days * DAY_S} * interval '1 second'`;
}

/** Ends all leases, like the time in which a killed process does not renew them. */
export async function endLeases({ sql }: Target): Promise<void> {
  await sql`update segments set leased_until = null`;
  await sql`update object_garbage set due_at = now()`;
}

export async function archiveKeys({ objects }: Pick<Target, "objects">): Promise<string[]> {
  return (await Array.fromAsync(objects.list("archives/"))).map(({ key }) => key);
}

/** Returns the keys of archives that have a row. */
export async function archiveRows({ sql }: Pick<Target, "sql">): Promise<string[]> {
  const rows = await sql<{ id: string; projectId: number; day: string }[]>`
    select id, project_id as "projectId", day::text from archives`;
  return rows.map((row) => archiveKey(row)).toSorted();
}

export type ReadBatch = ArchivedBatch & { body: Uint8Array };

/** Reads from the archives' bytes a session's rows and batches in the order of commits. */
export async function archivedOf(app: Target, { sessionID }: Pick<TestSession, "sessionID">) {
  const pieces = await app.sql<
    { id: string; projectId: number; day: string; start: number; length: number; index: number }[]
  >`
    select archives.id, archives.project_id as "projectId", day::text, start::float8, length::float8, index_start::float8 as index
    from session_pieces join archives on archives.id = archive_id
    where session_id = ${sessionID} order by first_segment, first_offset`;
  const rows: Record<string, unknown>[] = [];
  const batches: ReadBatch[] = [];
  for (const { start, length, index, ...name } of pieces) {
    const key = archiveKey(name);
    const bytes = await app.objects.read(key, start, start + length);
    const indexes = Array.from(bodiesIn(bytes.subarray(index - start)), unpackIndex);
    rows.push(...Array.from(bodiesIn(bytes.subarray(0, indexes[0]?.at)), (body) => unpack(body)));
    for (const one of indexes) batches.push(...batchesIn(bytes, one));
  }
  return { rows, batches, bodies: batches.map(({ body }) => body) };
}

/** Returns the bodies of batches for comparison. */
export function toBytes({ bodies }: { bodies: Uint8Array[] }): Uint8Array[] {
  return bodies.map((body) => new Uint8Array(body));
}

function* batchesIn(bytes: Uint8Array, { at, frames, batches }: Index): Generator<ReadBatch> {
  let start = at;
  let nth = 0;
  for (const frame of frames) {
    const end = start + RECORD_HEADER_BYTES + frame.length;
    const own = batches.slice(nth, (nth += frame.batches));
    const bodies = unpackFrame(recordBody(bytes.subarray(start, end)), frame, own);
    for (const [index, batch] of own.entries())
      yield { ...batch, body: bodies[index] ?? new Uint8Array() };
    start = end;
  }
}

/** Yields the bodies of consecutive records. */
function* bodiesIn(bytes: Uint8Array): Generator<Uint8Array> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at < bytes.length;) {
    const end = at + RECORD_HEADER_BYTES + view.getUint32(at, true);
    yield recordBody(bytes.subarray(at, end));
    at = end;
  }
}

/** Returns the footer of an archive. */
export async function archiveFooter({ objects }: Pick<Target, "objects">, key: string) {
  for await (const listed of objects.list(key)) return (await readEndOf(objects, listed)).footer;
  throw new Error(`no ${key}`);
}

export function archiveId(key: string): string {
  return archiveNameOf(key)?.id ?? "";
}

/** Returns the keys of segments by whether they are archived. */
export async function segmentStates({ sql }: Pick<Target, "sql">) {
  const rows = await sql<{ id: string; archived: boolean; deleted: boolean }[]>`
    select id, archived_at is not null as archived, deleted from segments order by id`;
  return rows.map(({ id, ...state }) => ({ key: segmentKey(id), ...state }));
}

/** Returns the number of rows in `batches`. */
export async function batchRows({ sql }: Pick<Target, "sql">): Promise<number> {
  const [row] = await sql<[{ count: number }]>`select count(*)::integer as count from batches`;
  return row.count;
}
