import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pack } from "msgpackr";
import { pino } from "pino";

import { type ArchiveName, archiveKey } from "../../src/archives/archive-key.ts";
import { ArchiveWriter } from "../../src/archives/archive-writer.ts";
import { Merger, type MergerDeps, type MergerOptions } from "../../src/archives/merge/merger.ts";
import { type ArchivedBatch, type Origin } from "../../src/archives/piece-index.ts";
import { PieceWriter } from "../../src/archives/piece-writer.ts";
import { type Archive, type Piece, insertArchives } from "../../src/archives/piece.ts";
import { readFooter } from "../../src/log/footer.ts";
import { FLAG, type RecordHead } from "../../src/log/record.ts";
import { SYSTEM_CLOCK } from "../../src/platform/clock.ts";
import { type Sql, openDatabase } from "../../src/platform/database/database.ts";
import { FileObjects } from "../../src/platform/objects/file-objects.ts";
import { type ObjectStore } from "../../src/platform/objects/objects.ts";
import { garbageOf, sweep } from "./archives.ts";
import { freshDatabase } from "./postgres.ts";

const LOG = pino({ level: "silent" });
export const DAY = "2026-11-30";

export type MadeBatch = ArchivedBatch & { body: Uint8Array };
export type MadeRow = { origin: Origin; head: RecordHead; body: Uint8Array };
export type MadeSession = { rows: MadeRow[]; batches: MadeBatch[] };

/** A database and a folder of objects, in which tests make archives. */
export class ArchiveStore implements AsyncDisposable {
  readonly databaseUrl: string;
  readonly folder: string;
  readonly sql: Sql;
  readonly objects: ObjectStore;

  private constructor(databaseUrl: string, folder: string, objects: ObjectStore) {
    this.databaseUrl = databaseUrl;
    this.folder = folder;
    this.sql = openDatabase(databaseUrl, { connections: 4 });
    this.objects = objects;
  }

  static async open(): Promise<ArchiveStore> {
    const folder = await mkdtemp(join(tmpdir(), "floodgate-archives-"));
    return new ArchiveStore(await freshDatabase(), folder, await FileObjects.open(folder));
  }

  /** Stores an archive of these sessions and inserts its rows. */
  async add(
    sessions: Map<bigint, MadeSession>,
    { projectId = 1, day = DAY }: Partial<ArchiveName> = {},
  ): Promise<Archive> {
    const id = Bun.randomUUIDv7();
    const archive = new ArchiveWriter(id, []);
    const chunks = [archive.begin()];
    const pieces: Piece[] = [];
    for (const sessionId of [...sessions.keys()].toSorted((a, b) => (a < b ? -1 : 1))) {
      const { rows, batches } = sessions.get(sessionId) ?? { rows: [], batches: [] };
      const writer = new PieceWriter(archive, { archiveId: id, projectId, sessionId });
      for (const { head, body, origin } of rows) chunks.push(...writer.addRow(head, body, origin));
      for (const { body, ...batch } of batches) chunks.push(...writer.addBatch(batch, body));
      const end = writer.end();
      let step = end.next();
      for (; step.done !== true; step = end.next()) chunks.push(step.value);
      pieces.push(step.value);
    }
    chunks.push(archive.end());
    return await this.put({ id, projectId, day, kind: "sessions" }, archive, chunks, pieces);
  }

  /** Stores an archive of these records; returns where the header of each begins. */
  async addRecords(
    kind: Archive["kind"],
    records: { head: RecordHead; body: Uint8Array }[],
    { projectId = 1, day = DAY }: Partial<ArchiveName> = {},
  ): Promise<Archive & { starts: number[] }> {
    const id = Bun.randomUUIDv7();
    const archive = new ArchiveWriter(id, []);
    const chunks = [archive.begin()];
    const starts: number[] = [];
    for (const { head, body } of records) {
      starts.push(archive.bytes);
      chunks.push(archive.add(head, body), body);
    }
    chunks.push(archive.end());
    const made = await this.put({ id, projectId, day, kind }, archive, chunks, []);
    return { ...made, starts };
  }

  async put(
    name: Omit<Archive, "bytes" | "records">,
    { records }: ArchiveWriter,
    chunks: Uint8Array[],
    pieces: Piece[],
  ): Promise<Archive> {
    const object = Buffer.concat(chunks);
    const made: Archive = { ...name, bytes: object.length, records };
    await this.objects.put(archiveKey(made), object);
    await insertArchives(this.sql, [made], pieces);
    return made;
  }

  /** Changes a byte of the object. */
  async flip(archive: Archive, at: number, flip = 1): Promise<void> {
    const path = join(this.folder, archiveKey(archive));
    const bytes = await Bun.file(path).bytes();
    bytes[at]! ^= flip;
    await Bun.write(path, bytes);
  }

  /** Returns the rows of archives, oldest first. */
  async archives(): Promise<Archive[]> {
    return await this.sql<Archive[]>`
      select id, project_id as "projectId", day::text, kind, bytes::float8, records from archives order by id`;
  }

  /** Returns the keys of all objects. */
  async keys(): Promise<string[]> {
    return (await Array.fromAsync(this.objects.list("archives/"))).map(({ key }) => key);
  }

  /** Makes leases that others have left behind run out. */
  async endLeases(): Promise<void> {
    await this.sql`update archives set leased_until = now() - interval '1 second' where leased_until is not null`;
  }

  /** Returns the ids of archives that are marked as unreadable. */
  async marked(): Promise<string[]> {
    const rows = await this.sql<{ id: string }[]>`select segment_id as id from unreadable_segments`;
    return rows.map(({ id }) => id);
  }

  /** Returns the sessions that an archive has records of. */
  async sessionsIn(archive: Archive): Promise<bigint[]> {
    const object = await this.objects.read(archiveKey(archive), 0, archive.bytes);
    return readFooter(object).entries.map(({ sessionId }) => sessionId);
  }

  /** Deletes objects that nothing refers to, as if they were all due. */
  async collect(): Promise<void> {
    await this.sql`update object_garbage set due_at = now()`;
    await sweep(this);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.sql[Symbol.asyncDispose]();
    await rm(this.folder, { recursive: true, force: true });
  }
}

type MergeResult = Parameters<MergerDeps["metrics"]["countMerge"]>[0];

type MergerParts = Partial<MergerOptions & Pick<MergerDeps, "objects" | "log">>;

/** A merger of whatever there is, and its results. */
export function mergerOf(
  store: Pick<ArchiveStore, "sql" | "objects">,
  { objects = store.objects, log = LOG, ...options }: MergerParts = {},
): Merger & { results: MergeResult[] } {
  const { sql } = store;
  const results: MergeResult[] = [];
  const garbage = garbageOf({ sql, objects });
  const metrics = { countMerge: (result: MergeResult) => void results.push(result) };
  const deps = { sql, objects, garbage, clock: SYSTEM_CLOCK, metrics, log };
  return Object.assign(new Merger(deps, { everyS: 0, graceS: 600, ...options }), { results });
}

/** Returns a batch that was stored at that place, whose times and counts follow from it. */
export function batchAt(origin: Origin, body: Uint8Array, flags = 0): MadeBatch {
  const receivedAt = 1_764_500_000_000 + origin.offset;
  const isQuarantined = (flags & FLAG.quarantined) !== 0;
  return {
    ...origin,
    flags,
    receivedAt,
    firstAt: isQuarantined ? null : receivedAt - 5000,
    lastAt: isQuarantined ? null : receivedAt - 1000,
    bytes: body.length,
    hash: Bun.hash.xxHash3(body),
    messages: isQuarantined ? 0 : 1 + (body.length % 7),
    body,
  };
}

/** Returns a record of a row that was stored at that place. */
export function rowAt(kind: "session" | "image", origin: Origin, row: object): MadeRow {
  const head = { kind, flags: 0, projectId: 1, sessionId: 0n, receivedAt: 1_764_500_000_000 };
  return { origin, head, body: pack(row) };
}
