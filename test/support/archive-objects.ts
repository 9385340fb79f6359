import { pack } from "msgpackr";

import { archiveKey, dayOf } from "../../src/archives/archive-key.ts";
import { ArchiveWriter } from "../../src/archives/archive-writer.ts";
import { type ArchivedBatch, type Origin } from "../../src/archives/piece-index.ts";
import { PieceWriter } from "../../src/archives/piece-writer.ts";
import { type Archive, type Piece, insertArchives } from "../../src/archives/piece.ts";
import { readChecked } from "../../src/log/checked-segment.ts";
import { FLAG, type RecordHead, type SegmentEntry } from "../../src/log/record.ts";
import { SegmentReader, batchBody } from "../../src/log/segment-reader.ts";
import { segmentKey } from "../../src/log/segment.ts";
import { sessionTime } from "../../src/log/session-time.ts";
import { type Sql } from "../../src/platform/database/database.ts";
import { Lost } from "../../src/platform/objects/read-faults.ts";
import { type TestApp } from "./app.ts";

type Target = Pick<TestApp, "sql" | "objects">;
type Row = Origin & { head: RecordHead; body: Uint8Array };
type Batch = { batch: ArchivedBatch; body: Uint8Array };
export type Session = { projectId: number; rows: Row[]; batches: Batch[] };

/** An archive that was written, and the rows that its step would insert. */
export type Written = { archive: Archive; key: string; bytes: Uint8Array; pieces: Piece[] };
/** Batches and contents of images that a step moves. */
type Moved = { batches: (Origin & { sessionId: bigint })[]; contents: Place[] };
type Place = { key: string; archiveId: string; offset: number; length: number };
export type Step = { written: Written[]; moved: Moved; segments: string[] };

/** Archives the segments with these ids, by default all of them, as a working process does. */
export async function archived(app: Target, ids?: string[]): Promise<Step> {
  const step = await writeStep(app, ids);
  await commitStep(app.sql, step);
  return step;
}

/** Writes the archives of a step whose rows are never committed. */
export async function writeStep(app: Target, ids?: string[]): Promise<Step> {
  const segments = await app.sql<{ id: string; bytes: number }[]>`
    select id, bytes from segments where not deleted and ${ids === undefined ? app.sql`true` : app.sql`id = any(${ids})`} order by id`;
  const { sessions, projects } = await readSegments(app, segments);
  const sources = segments.map(({ id }) => id);
  const written = sessionArchives(sessions, sources);
  written.push(...projectArchives(projects, sources));
  const images = await imageArchive(app);
  if (images !== undefined) written.push(images.written);
  for (const { key, bytes } of written) await app.objects.put(key, bytes);
  const batches = [...sessions].flatMap(([sessionId, one]) =>
    one.batches.map(({ batch: { segmentId, offset } }) => ({ sessionId, segmentId, offset })),
  );
  return { written, moved: { batches, contents: images?.places ?? [] }, segments: sources };
}

export async function commitStep(sql: Sql, { written, moved, segments }: Step): Promise<void> {
  await sql.begin(async (transaction) => {
    const archives = written.map(({ archive }) => archive);
    const pieces = written.flatMap((one) => one.pieces);
    await insertArchives(transaction, archives, pieces);
    for (const { sessionId, segmentId, offset } of moved.batches)
      await transaction`
        delete from batches where session_id = ${sessionId} and segment_id = ${segmentId} and "offset" = ${offset}`;
    await transaction`update segments set archived_at = now() where id = any(${segments})`;
    for (const { key, archiveId, offset, length } of moved.contents)
      await transaction`
        update image_contents set archive_id = ${archiveId}, archive_offset = ${offset}, archive_length = ${length},
          chunk_segments = '{}', chunk_offsets = '{}', chunk_lengths = '{}'
        where project_id || '/' || name || '/' || encode(sha256, 'hex') = ${key}`;
  });
}

/** Removes the objects of archived segments, which leave a tombstone. */
export async function dropArchived({ sql, objects }: Target): Promise<void> {
  const rows = await sql<{ id: string }[]>`
    update segments set deleted = true where archived_at is not null and not deleted returning id`;
  for (const { id } of rows) await objects.remove(segmentKey(id));
}

async function readSegments(app: Target, segments: { id: string; bytes: number }[]) {
  const sessions = new Map<bigint, Session>();
  const projects: { head: RecordHead; body: Uint8Array }[] = [];
  const known = new Map(
    (
      await app.sql<
        { id: bigint; project: number }[]
      >`select id, coalesce(project_id, 0) as project from sessions`
    ).map(({ id, project }) => [id, project]),
  );
  const live = new Set(
    (
      await app.sql<{ place: string }[]>`select segment_id || ' ' || "offset" as place from batches`
    ).map(({ place }) => place),
  );
  for (const { id, bytes } of segments) {
    const note = async (segmentId: string, entry: SegmentEntry, body: Uint8Array) => {
      await Promise.resolve();
      const { facts, flags, receivedAt, sessionId, offset } = entry;
      if (facts === undefined || !live.has(`${segmentId} ${offset}`)) return;
      const content = Buffer.from(batchBody(body, { flags, bytes: facts.bytes }));
      const batch = { segmentId, offset, flags: flags & ~FLAG.gzip, receivedAt, ...facts };
      sessionOf(sessions, sessionId, known.get(sessionId) ?? 0).batches.push({
        batch,
        body: content,
      });
    };
    const checked = await readChecked(app.objects, { key: segmentKey(id), bytes }, { note });
    const rows = {
      session: [...checked.sessions],
      image: [...checked.images],
      project: [...checked.projects],
    };
    for (const entry of checked.entries) {
      const { offset, kind, flags, projectId, sessionId, receivedAt } = entry;
      const head = { kind, flags, projectId, sessionId, receivedAt };
      if (head.kind === "project") projects.push({ head, body: pack(rows.project.shift()) });
      else if (head.kind === "session" || head.kind === "image") {
        const row: Record<string, unknown> = { ...rows[head.kind].shift() };
        for (const name of ["chunk_segments", "chunk_offsets", "chunk_lengths"]) delete row[name];
        const session = sessionOf(sessions, head.sessionId, known.get(head.sessionId) ?? 0);
        session.rows.push({ segmentId: id, offset, head, body: pack(row) });
      }
    }
  }
  return { sessions, projects };
}

export function sessionOf(sessions: Map<bigint, Session>, id: bigint, projectId: number): Session {
  const session = sessions.get(id) ?? { projectId, rows: [], batches: [] };
  sessions.set(id, session);
  return session;
}

export function sessionArchives(sessions: Map<bigint, Session>, sources: string[]): Written[] {
  const groups = Map.groupBy(
    [...sessions].toSorted(([a], [b]) => (a < b ? -1 : 1)),
    ([id, { projectId }]) => `${projectId}/${dayOf(sessionTime(id))}`,
  );
  return Array.from(groups, ([group, members]) => {
    const [projectId = "", day = ""] = group.split("/");
    return write(
      { kind: "sessions", projectId: Number(projectId), day, sources },
      function* (writer, archiveId) {
        const pieces: Piece[] = [];
        for (const [sessionId, { rows, batches }] of members) {
          const piece = new PieceWriter(writer, {
            archiveId,
            projectId: Number(projectId),
            sessionId,
          });
          for (const { head, body, segmentId, offset } of rows.toSorted(byOrigin))
            yield* piece.addRow(head, body, { segmentId, offset });
          for (const { batch, body } of batches.toSorted((a, b) => byOrigin(a.batch, b.batch)))
            yield* piece.addBatch(batch, body);
          pieces.push(yield* piece.end());
        }
        return pieces;
      },
    );
  });
}

function projectArchives(
  projects: { head: RecordHead; body: Uint8Array }[],
  sources: string[],
): Written[] {
  const groups = Map.groupBy(projects, ({ head }) => `${head.projectId}/${dayOf(head.receivedAt)}`);
  return Array.from(groups, ([group, records]) => {
    const [projectId = "", day = ""] = group.split("/");
    return write(
      { kind: "projects", projectId: Number(projectId), day, sources },
      function* (writer) {
        for (const { head, body } of records) {
          yield writer.add(head, body);
          yield body;
        }
        return [];
      },
    );
  });
}

/** Writes the contents of images that are in segments; those of one project. */
async function imageArchive({
  sql,
  objects,
}: Target): Promise<{ written: Written; places: Place[] } | undefined> {
  const rows = await sql<
    {
      row: Record<string, unknown>;
      key: string;
      ids: string[];
      offsets: number[];
      lengths: number[];
    }[]
  >`
    select to_jsonb(c) - '{sha256,chunk_segments,chunk_offsets,chunk_lengths,archive_id,archive_offset,archive_length}'::text[]
        || jsonb_build_object('sha256', encode(sha256, 'hex'), 'network_session', network_session::text) as row,
      project_id || '/' || name || '/' || encode(sha256, 'hex') as key,
      chunk_segments as ids, chunk_offsets as offsets, chunk_lengths as lengths
    from image_contents c where archive_id is null order by name`;
  if (rows.length === 0) return undefined;
  const bodies: Uint8Array[][] = [];
  for (const { ids, offsets, lengths } of rows) {
    const places = ids.map((segmentId, nth) => ({
      segmentId,
      offset: offsets[nth] ?? 0,
      length: lengths[nth] ?? 0,
    }));
    const chunks: Uint8Array[] = [];
    for await (const { body } of new SegmentReader(objects).read(places)) {
      if (body instanceof Lost) throw body;
      chunks.push(Buffer.from(body));
    }
    bodies.push(chunks);
  }
  const head = { flags: 0, projectId: 1, sessionId: 0n, receivedAt: Date.now() };
  const places: Place[] = [];
  const sources = [...new Set(rows.flatMap(({ ids }) => ids))];
  const written = write(
    { kind: "images", projectId: 1, day: dayOf(Date.now()), sources },
    function* (writer, archiveId) {
      for (const [nth, { row, key }] of rows.entries()) {
        const content = pack(row);
        yield writer.add({ ...head, kind: "content" }, content);
        yield content;
        const offset = writer.bytes;
        for (const chunk of bodies[nth] ?? []) {
          yield writer.add({ ...head, kind: "chunk" }, chunk);
          yield chunk;
        }
        places.push({ key, archiveId, offset, length: writer.bytes - offset });
      }
      return [];
    },
  );
  return { written, places };
}

type Name = Pick<Archive, "kind" | "projectId" | "day"> & { sources: string[] };

function write(
  { kind, projectId, day, sources }: Name,
  records: (writer: ArchiveWriter, archiveId: string) => Generator<Uint8Array, Piece[]>,
): Written {
  const id = Bun.randomUUIDv7();
  const writer = new ArchiveWriter(id, sources);
  const parts: Uint8Array[] = [writer.begin()];
  const written = records(writer, id);
  let next = written.next();
  for (; next.done !== true; next = written.next()) parts.push(next.value);
  parts.push(writer.end());
  const { bytes, records: count } = writer;
  const archive = { id, projectId, day, kind, bytes, records: count };
  return { archive, key: archiveKey(archive), bytes: Buffer.concat(parts), pieces: next.value };
}

function byOrigin(a: Origin, b: Origin): number {
  return a.segmentId === b.segmentId ? a.offset - b.offset : a.segmentId < b.segmentId ? -1 : 1;
}
