import { RECORD_HEADER_BYTES, type SegmentEntry } from "../../log/record.ts";
import { type Sql } from "../../platform/database/database.ts";
import { type ArchiveWriter } from "../archive-writer.ts";
import { byOrigin } from "../piece-reader.ts";
import { PieceWriter } from "../piece-writer.ts";
import { type Archive, type Piece } from "../piece.ts";
import { FIRST, type InputPiece, batchesIn, rowsIn } from "./piece-input.ts";
import { type Input, type InputWindows, contradiction } from "./windows.ts";

// Rows of pieces that are held in memory, of all inputs together.
const PIECES_HELD = 8192;
const PIECES_PAGE_MIN = 32;

/** Archives that are merged. */
export type Source = { sql: Sql; inputs: Input[]; windows: InputWindows };

/** Records that are written to one archive together, of about that many bytes. */
export type Unit = {
  bytes: number;
  write: (archive: ArchiveWriter, archiveId: string) => AsyncGenerator<Uint8Array>;
};

/** Session that was merged out of that many pieces. */
export type MergedSession = { piece: Piece; pieces: number };
/** New place of a content. */
export type MovedContent = {
  from: { archiveId: string; offset: number };
  to: { archiveId: string; offset: number };
  length: number;
};
/** Records that were written. */
export type Merged = { sessions: MergedSession[]; contents: MovedContent[] };

/** Yields what to write of inputs of that kind, in order; what was written is added to `merged`. */
export function unitsOf(
  kind: Archive["kind"],
  source: Source,
  merged: Merged,
): AsyncGenerator<Unit, void> {
  if (kind === "sessions") return sessionsOf(source, merged);
  return kind === "images" ? contentsOf(source, merged) : projectsOf(source);
}

/** Yields the sessions of the inputs in ascending order, as far as their pieces have rows. */
async function* sessionsOf(
  { sql, inputs, windows }: Source,
  merged: Merged,
): AsyncGenerator<Unit, void> {
  const page = Math.max(PIECES_PAGE_MIN, Math.floor(PIECES_HELD / inputs.length));
  const streams = inputs.map((input) => ({
    from: { sessionId: -1n },
    items: piecesOf(sql, input, page),
  }));
  let pieces: InputPiece[] = [];
  for await (const piece of inOrder(streams, bySession)) {
    if (pieces[0] !== undefined && pieces[0].sessionId !== piece.sessionId) {
      yield sessionOf(windows, pieces, merged);
      pieces = [];
    }
    pieces.push(piece);
  }
  if (pieces.length > 0) yield sessionOf(windows, pieces, merged);
}

async function* piecesOf(sql: Sql, input: Input, page: number): AsyncGenerator<InputPiece> {
  let last = -1n;
  for (;;) {
    const rows = await sql<Omit<InputPiece, "input">[]>`
      select session_id as "sessionId", start::float8, length::float8, index_start::float8 as "indexStart", batches,
        first_segment as "firstSegment", first_offset as "firstOffset"
      from session_pieces where archive_id = ${input.id} and session_id > ${last}
      order by session_id limit ${page}`;
    for (const row of rows) yield { ...row, input };
    const next = rows.at(-1);
    if (next === undefined || rows.length < page) return;
    last = next.sessionId;
  }
}

function sessionOf(windows: InputWindows, pieces: InputPiece[], merged: Merged): Unit {
  const [first] = pieces;
  if (first === undefined) throw new Error("a session without a piece");
  const { sessionId, input } = first;
  const write = async function* (archive: ArchiveWriter, archiveId: string) {
    const writer = new PieceWriter(archive, { archiveId, projectId: input.projectId, sessionId });
    for (const piece of pieces) await windows.ahead(piece.input, piece.start, piece.length);
    const rows = pieces.map((piece) => ({ from: FIRST, items: rowsIn(windows, piece) }));
    const origins = new Set<string>();
    for await (const { record, ...origin } of inOrder(rows, byOrigin)) {
      const place = `${origin.segmentId} ${origin.offset}`;
      if (!origins.has(place)) yield* writer.addRow(record.head, record.body, origin);
      origins.add(place);
    }
    // Pieces are opened only when it is their turn: they seldom overlap.
    const batches = pieces.map((piece) => ({
      from: { segmentId: piece.firstSegment ?? "", offset: piece.firstOffset ?? 0 },
      items: batchesIn(windows, piece),
    }));
    // The first one stays of a batch that was stored twice, or of which two inputs have the record.
    const hashes = new Set<bigint>();
    for await (const { body, ...batch } of inOrder(batches, byOrigin)) {
      if (hashes.has(batch.hash)) continue;
      hashes.add(batch.hash);
      yield* writer.addBatch(batch, body);
    }
    merged.sessions.push({ piece: yield* writer.end(), pieces: pieces.length });
  };
  return { bytes: pieces.reduce((sum, { length }) => sum + length, 0), write };
}

/**
 * Merges streams, each of which is in order. `from` is what a stream begins with, or something
 * before it; the stream is not opened before that.
 */
async function* inOrder<Key, Item extends Key>(
  streams: { from: Key; items: AsyncGenerator<Item> }[],
  compare: (a: Key, b: Key) => number,
): AsyncGenerator<Item> {
  type Waiting = { from: Key; item?: Item; items: AsyncGenerator<Item> };
  const waiting: Waiting[] = streams.toSorted((a, b) => compare(a.from, b.from));
  for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
    if (next.item !== undefined) yield next.item;
    const { done, value } = await next.items.next();
    if (done === true) continue;
    const behind = waiting.findIndex(({ from }) => compare(from, value) > 0);
    const place = behind === -1 ? waiting.length : behind;
    waiting.splice(place, 0, { from: value, item: value, items: next.items });
  }
}

function bySession(a: { sessionId: bigint }, b: { sessionId: bigint }): number {
  return Number(a.sessionId > b.sessionId) - Number(a.sessionId < b.sessionId);
}

/** Yields the contents that rows refer to. */
async function* contentsOf(
  { sql, inputs, windows }: Source,
  merged: Merged,
): AsyncGenerator<Unit, void> {
  for (const input of inputs) {
    const places = await sql<{ offset: number; length: number }[]>`
      select distinct archive_offset::float8 as "offset", archive_length::float8 as length from image_contents
      where archive_id = ${input.id} order by 1, 2`;
    if (places.length === 0) continue;
    const { entries } = await windows.footer(input);
    const nthBefore = new Map(entries.map(({ offset, length }, nth) => [offset + length, nth]));
    for (const { offset, length } of places) {
      const nth = nthBefore.get(offset);
      const last = nthBefore.get(offset + length);
      const [content, ...chunks] = entries.slice(nth ?? 0, (last ?? 0) + 1);
      if (
        nth === undefined ||
        content?.kind !== "content" ||
        !chunks.every(({ kind }) => kind === "chunk")
      )
        throw contradiction(input, "a content is not where its row says");
      const from = { archiveId: input.id, offset };
      const bytes = RECORD_HEADER_BYTES + content.length + length;
      const write = async function* (archive: ArchiveWriter, archiveId: string) {
        for (const entry of [content, ...chunks]) yield* copied(archive, input, windows, entry);
        merged.contents.push({ from, to: { archiveId, offset: archive.bytes - length }, length });
      };
      yield { bytes, write };
    }
  }
}

/** Yields the records of projects by time, each of them once. */
async function* projectsOf({ inputs, windows }: Source): AsyncGenerator<Unit, void> {
  const found = new Map<string, { input: Input; entry: SegmentEntry }>();
  for (const input of inputs)
    for (const entry of (await windows.footer(input)).entries) {
      const { kind, receivedAt, projectId, length, checksum } = entry;
      found.set([kind, receivedAt, projectId, length, checksum].join(), { input, entry });
    }
  const byTime = [...found.values()].toSorted((a, b) => a.entry.receivedAt - b.entry.receivedAt);
  for (const { input, entry } of byTime) {
    const write = async function* (archive: ArchiveWriter) {
      yield* copied(archive, input, windows, entry);
    };
    yield { bytes: RECORD_HEADER_BYTES + entry.length, write };
  }
}

async function* copied(
  archive: ArchiveWriter,
  input: Input,
  windows: InputWindows,
  entry: SegmentEntry,
): AsyncGenerator<Uint8Array> {
  const body = await windows.entry(input, entry);
  yield archive.add(entry, body, entry.checksum);
  yield body;
}
