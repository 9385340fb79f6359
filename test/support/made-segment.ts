import { pack } from "msgpackr";

import { type BatchFacts, type Kind } from "../../src/log/record.ts";
import { SegmentWriter, segmentKey } from "../../src/log/segment.ts";
import { type ObjectStore } from "../../src/platform/objects/objects.ts";

/** A record to write; its body is the bytes of a batch or chunk, or a row. */
export type MadeRecord = {
  kind: Kind;
  sessionID: string;
  projectId?: number;
  body: Uint8Array | object;
};

/** Returns a segment id of that age by this machine's clock. */
export function segmentId(ageMs: number): string {
  const hex = (Date.now() - ageMs).toString(16).padStart(12, "0");
  return `${hex.slice(0, 8)}-${hex.slice(8)}${Bun.randomUUIDv7().slice(13)}`;
}

/** Stores a segment, like a server that dies before it indexes it. */
export async function putSegment(
  objects: ObjectStore,
  records: MadeRecord[],
  {
    ageMs = 0,
    id = segmentId(ageMs),
    bufferBytes = 2 ** 20,
  }: { ageMs?: number; id?: string; bufferBytes?: number } = {},
) {
  const writer = new SegmentWriter(Buffer.alloc(bufferBytes));
  const places = records.map(({ kind, sessionID, projectId = 1, body }) => {
    const bytes = body instanceof Uint8Array ? body : pack(body);
    const receivedAt = Date.now() - ageMs;
    const head = { kind, flags: 0, projectId, sessionId: BigInt(sessionID), receivedAt };
    return writer.append(head, bytes, kind === "batch" ? factsOf(bytes) : undefined);
  });
  const { bytes } = writer.seal(id);
  await objects.put(segmentKey(id), bytes);
  return { id, key: segmentKey(id), places };
}

function factsOf(batch: Uint8Array): BatchFacts {
  const hash = Bun.hash.xxHash3(batch);
  return { bytes: batch.length, hash, messages: 1, firstAt: null, lastAt: null };
}
