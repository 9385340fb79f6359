import { expect } from "bun:test";

import { archiveKey } from "../../src/archives/archive-key.ts";
import {
  type ArchivedBatch,
  type Index,
  type Origin,
  unpackFrame,
  unpackIndex,
} from "../../src/archives/piece-index.ts";
import { type Piece, addBatch, emptyPiece } from "../../src/archives/piece.ts";
import { checkLength, checkMagic, footerBytes, readFooter } from "../../src/log/footer.ts";
import { KINDS, RECORD_HEADER_BYTES, compareRecord, recordBody } from "../../src/log/record.ts";
import { type History } from "./archive-histories.ts";
import { type ArchiveStore } from "./archive-store.ts";

export type ReadBatch = ArchivedBatch & { body: Uint8Array };
export type ReadPiece = {
  row: Piece;
  rows: { origin: Origin; kind: string; body: Uint8Array }[];
  batches: ReadBatch[];
};

/**
 * Reads everything of all archives of sessions by their rows, with nothing but the format. Throws if
 * a row contradicts what is stored.
 */
export async function readArchives(store: ArchiveStore): Promise<Map<bigint, ReadPiece[]>> {
  const sessions = new Map<bigint, ReadPiece[]>();
  for (const archive of await store.archives()) {
    const object = await store.objects.read(archiveKey(archive), 0, archive.bytes);
    checkObject(object, archive.id, archive.records);
    for (const row of await piecesOf(store, archive.id)) {
      const piece = readPiece(object.subarray(row.start, row.start + row.length), row);
      sessions.set(row.sessionId, [...(sessions.get(row.sessionId) ?? []), piece]);
    }
  }
  return sessions;
}

/** Returns all bytes of an archive, those of its frames and indexes inflated. */
export async function inflatedBytes(store: ArchiveStore, key: string): Promise<Buffer> {
  const [listed] = await Array.fromAsync(store.objects.list(key));
  const object = await store.objects.read(key, 0, listed?.bytes ?? 0);
  const { entries } = readFooter(object);
  const bodies = entries.map(({ kind, offset, length }) => {
    const body = object.subarray(offset, offset + length);
    return kind === "frame" || kind === "index" ? Bun.zstdDecompressSync(body) : body;
  });
  return Buffer.concat([object, ...bodies]);
}

/** Expects the sessions of the history, each in one piece, and nothing else. */
export async function expectHistory(store: ArchiveStore, { expected }: History): Promise<void> {
  const sessions = await readArchives(store);
  expect(new Set(sessions.keys())).toEqual(new Set(expected.keys()));
  for (const [id, { rows, batches }] of expected) {
    expect(sessions.get(id)).toHaveLength(1);
    const [piece] = sessions.get(id) ?? [];
    expect(piece?.rows.map(({ origin }) => origin)).toEqual(rows);
    const plain = batches.map(({ body, ...facts }) => ({ ...facts, body: Buffer.from(body) }));
    expect(piece?.batches).toEqual(plain);
  }
}

async function piecesOf({ sql }: ArchiveStore, archiveId: string): Promise<Piece[]> {
  return await sql<Piece[]>`
    select session_id as "sessionId", archive_id as "archiveId", start::float8, length::float8, index_start::float8 as "indexStart",
      batches, quarantined, messages::float8, bytes::float8, first_segment as "firstSegment", first_offset as "firstOffset",
      (extract(epoch from first_received) * 1000)::float8 as "firstReceived", (extract(epoch from last_received) * 1000)::float8 as "lastReceived",
      (extract(epoch from first_at) * 1000)::float8 as "firstAt", (extract(epoch from last_at) * 1000)::float8 as "lastAt"
    from session_pieces where archive_id = ${archiveId} order by session_id`;
}

function checkObject(object: Uint8Array, id: string, records: number): void {
  checkMagic(object);
  const footer = readFooter(object);
  checkLength(footer, object.length, footerBytes(object));
  if (footer.id !== id || footer.entries.length !== records) throw new Error("another footer");
  for (const entry of footer.entries) {
    const record = object.subarray(entry.offset - RECORD_HEADER_BYTES, entry.offset + entry.length);
    if (compareRecord(record, entry) !== "whole") throw new Error("a record is not whole");
  }
  const ids = footer.entries.map(({ sessionId }) => sessionId);
  if (ids.some((session, nth) => session < (ids[nth - 1] ?? 0n))) throw new Error("not in order");
}

function readPiece(piece: Uint8Array, row: Piece): ReadPiece {
  const at = (from: number) => {
    const start = from + RECORD_HEADER_BYTES;
    const view = new DataView(piece.buffer, piece.byteOffset + from, RECORD_HEADER_BYTES);
    const next = start + view.getUint32(0, true);
    const kind = KINDS[view.getUint8(32)] ?? "";
    return { kind, body: recordBody(piece.subarray(from, next)), next };
  };
  const indexes: Index[] = [];
  for (let from = row.indexStart - row.start; from < piece.length;) {
    const { body, next } = at(from);
    indexes.push(unpackIndex(body));
    from = next;
  }
  let from = 0;
  const rows: ReadPiece["rows"] = [];
  const batches: ReadBatch[] = [];
  for (const index of indexes) {
    for (const origin of index.rows) {
      const { kind, body, next } = at(from);
      rows.push({ origin, kind, body });
      from = next;
    }
    if (index.at !== from) throw new Error("an index begins elsewhere");
    let nth = 0;
    for (const frame of index.frames) {
      const inFrame = index.batches.slice(nth, (nth += frame.batches));
      const { body, next } = at(from);
      for (const [n, bytes] of unpackFrame(body, frame, inFrame).entries())
        batches.push({ ...inFrame[n]!, body: bytes });
      from = next;
    }
  }
  const counted = { ...emptyPiece(row), indexStart: row.indexStart, length: row.length };
  for (const { body: _, ...batch } of batches) addBatch(counted, batch);
  if (!Bun.deepEquals(counted, row)) throw new Error("a row contradicts its piece");
  return { row, rows, batches };
}
