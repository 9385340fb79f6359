import { unpack } from "msgpackr";

import { bareSession } from "../../log/checked-segment.ts";
import { type SegmentEntry } from "../../log/record.ts";
import { type ImageUse } from "../../log/recovery/archived-images.ts";
import { type ImageRecord, type SessionRecord } from "../../log/stored-segment.ts";
import { archiveTime } from "../archive-key.ts";
import { type ArchivedBatch, type Origin } from "../piece-index.ts";
import { type Archive, type Piece, emptyPiece } from "../piece.ts";

/** Records of a session in an archive, which were verified. */
export type CheckedPiece = {
  piece: Piece;
  sessions: SessionRecord[];
  uses: ImageUse[];
  /** Images of the previous version. */
  unhashed: ImageRecord[];
  /** Places at which its rows were first stored. */
  rows: Origin[];
  batches: ArchivedBatch[];
  /** Batches whose bodies cannot be read. */
  lost: Set<ArchivedBatch>;
};

export function noRecords(
  { id }: Archive,
  start: number,
  { sessionId }: SegmentEntry,
): CheckedPiece {
  const piece = emptyPiece({ archiveId: id, sessionId, start });
  return { piece, sessions: [], uses: [], unhashed: [], rows: [], batches: [], lost: new Set() };
}

/** Adds a row; its body is undefined if it is damaged. */
export function addRow(piece: CheckedPiece, entry: SegmentEntry, body?: Uint8Array): void {
  if (body === undefined) {
    if (entry.kind === "session") piece.sessions.push(bareSession(entry));
    return;
  }
  const row = unpack(body);
  if (entry.kind === "session") piece.sessions.push(row);
  else if (row.sha256 === undefined) piece.unhashed.push(row);
  else piece.uses.push(row);
}

/**
 * Counts frames that no index lists as a batch each, so that readers say that something is missing.
 * They come after all others.
 */
export function withUnlisted(piece: Piece, frames: number): Piece {
  const batches = piece.batches + frames;
  const first = {
    firstSegment: piece.firstSegment ?? piece.archiveId,
    firstOffset: piece.firstOffset ?? 0,
  };
  const ms = archiveTime(piece.archiveId);
  const received = {
    firstReceived: piece.firstReceived ?? ms,
    lastReceived: piece.lastReceived ?? ms,
  };
  return { ...piece, ...first, ...received, batches };
}
