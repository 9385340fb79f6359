import { expect } from "bun:test";

import { type ArchiveName, archiveKey } from "../../src/archives/archive-key.ts";
import { ArchiveWriter } from "../../src/archives/archive-writer.ts";
import { type ArchivedBatch } from "../../src/archives/piece-index.ts";
import { type PieceRange, readPiece } from "../../src/archives/piece-reader.ts";
import { PieceWriter } from "../../src/archives/piece-writer.ts";
import { type ObjectStore } from "../../src/platform/objects/objects.ts";
import { Lost } from "../../src/platform/objects/read-faults.ts";
import { Random } from "./random.ts";

const HEAD = { projectId: 1, sessionId: 7n };

/** Archive of one piece, and what is in it. */
export type WrittenPiece = {
  name: ArchiveName;
  piece: PieceRange;
  batches: ArchivedBatch[];
  bodies: Uint8Array[];
};

/** Returns facts about the nth batch of a session. */
export function batchOf(nth: number, body: Uint8Array): ArchivedBatch {
  return {
    segmentId: `01900000-0000-7000-8000-${String(Math.floor(nth / 3)).padStart(12, "0")}`,
    offset: 42 + (nth % 3) * 10_000_000,
    flags: nth % 16,
    receivedAt: 1_760_000_000_000 + nth,
    firstAt: nth % 4 === 0 ? null : nth,
    lastAt: nth % 4 === 0 ? null : nth + 1,
    bytes: body.length,
    hash: Bun.hash.xxHash3(body),
    messages: nth,
  };
}

/** Writes an archive of one piece. */
export async function writePiece(
  objects: ObjectStore,
  bodies: Uint8Array[],
): Promise<WrittenPiece> {
  const name = { id: Bun.randomUUIDv7(), projectId: 1, day: "2026-12-01" };
  const archive = new ArchiveWriter(name.id, []);
  const writer = new PieceWriter(archive, { ...HEAD, archiveId: name.id });
  const chunks = [archive.begin()];
  const row = { ...HEAD, kind: "session", flags: 0, receivedAt: 0 } as const;
  chunks.push(...writer.addRow(row, Buffer.from("row"), { segmentId: name.id, offset: 42 }));
  const batches = bodies.map((body, nth) => batchOf(nth, body));
  for (const [nth, batch] of batches.entries())
    chunks.push(...writer.addBatch(batch, bodies[nth] ?? new Uint8Array()));
  const end = writer.end();
  let step = end.next();
  for (; step.done !== true; step = end.next()) chunks.push(step.value);
  chunks.push(archive.end());
  await objects.put(archiveKey(name), Buffer.concat(chunks));
  return { name, piece: step.value, batches, bodies };
}

/** Returns bytes of which zstd saves a half. */
export function noise(seed: number, bytes: number): Uint8Array {
  return Buffer.from(
    new Random(seed)
      .bytes(Math.ceil(bytes / 2))
      .toHex()
      .slice(0, bytes),
  );
}

/** Reads the bodies of a piece. */
export async function bodiesOf(
  objects: ObjectStore,
  { name, piece }: Pick<WrittenPiece, "name" | "piece">,
): Promise<(Uint8Array | "lost")[]> {
  const all = await Array.fromAsync(readPiece(objects, name, piece));
  return all.map(({ body }) => (body instanceof Lost ? "lost" : body));
}

export function expectSame(
  bodies: (Uint8Array | "lost")[],
  expected: (Uint8Array | "lost")[],
): void {
  expect(bodies.map(hashOf)).toEqual(expected.map(hashOf));
}

function hashOf(body: Uint8Array | "lost"): bigint | "lost" {
  return body === "lost" ? body : Bun.hash.xxHash3(body);
}
