import { unpack } from "msgpackr";

import { type Queryable } from "../platform/database/database.ts";
import { discarded } from "../platform/gc.ts";
import { ObjectDamaged, ObjectMissing, type ObjectStore } from "../platform/objects/objects.ts";
import { type Footer, checkLength, checkMagic, footerBytes } from "./footer.ts";
import { RECORD_HEADER_BYTES, type SegmentEntry, SegmentError, compareRecord } from "./record.ts";
import {
  type Listed,
  ROWS,
  type SessionRecord,
  type StoredSegment,
  emptySegment,
  isRowKind,
  readEnd,
} from "./stored-segment.ts";

// Bytes read at once, unless a single record is longer.
export const WINDOW_BYTES = 8 * 2 ** 20 + 64 * 1024;
const MAGIC_BYTES = 8;

/** Segment whose bytes have all been verified. */
export type CheckedSegment = StoredSegment & {
  /** Entries of records that cannot be read. */
  damaged: SegmentEntry[];
  /** Description of the damage, even if the records can still be read. */
  problem: string | undefined;
};

/** Takes notes of batches as they are read. */
export interface BatchNotes {
  note: (segmentId: string, entry: SegmentEntry, body: Uint8Array) => Promise<void>;
  /** True if the notes should be written before more are taken. */
  readonly isFull: boolean;
  /**
   * Forgets batches that another segment has whose notes are written. Call it before the batches'
   * rows are moved to these segments.
   */
  leaveOutWritten: (sql: Queryable, segmentIds: string[]) => Promise<void>;
  /** Writes the notes of segments that have rows, and forgets them. */
  write: (segmentIds: string[]) => Promise<void>;
  /** Forgets the notes of segments that another process has restored, or that cannot be read. */
  forget: (segmentIds: string[]) => void;
}

/**
 * Reads and verifies a segment; its intact batches are noted. Throws SegmentError if the object has
 * no valid footer, so that its records cannot be located.
 */
export async function readChecked(
  objects: ObjectStore,
  listed: Listed,
  batches?: Pick<BatchNotes, "note">,
): Promise<CheckedSegment> {
  const { bytes } = listed;
  const { footer, tail, window } = await open(objects, listed);
  const segment = emptySegment(footer, listed);
  const damaged: SegmentEntry[] = [];
  let mismatched = 0;
  for await (const { entry, record, state } of recordsOf(window, footer.entries, bytes)) {
    if (state !== "whole") mismatched++;
    if (state === "damaged") damaged.push(entry);
    const { kind } = entry;
    if (kind === "batch" && state !== "damaged")
      await batches?.note(footer.id, entry, record.subarray(RECORD_HEADER_BYTES));
    if (!isRowKind(kind)) continue;
    if (state !== "damaged") segment[ROWS[kind]].push(unpack(record.subarray(RECORD_HEADER_BYTES)));
    else if (kind === "session") segment.sessions.push(bareSession(entry));
  }
  const problem =
    (await frameProblem(window, footer, footerBytes(tail), bytes)) ?? countOf(mismatched, footer);
  discarded(bytes);
  return { ...segment, damaged, problem };
}

/** Record of a segment that was read; `body` is undefined if it cannot be. */
export type CheckedRecord = { entry: SegmentEntry; body: Uint8Array | undefined };

/**
 * Reads the footer of a segment; `records` then reads and verifies the records of its entries.
 * Throws SegmentError if the object has no valid footer.
 */
export async function openChecked(
  objects: ObjectStore,
  listed: Listed,
): Promise<{
  footer: Footer;
  records: (entries: SegmentEntry[]) => AsyncGenerator<CheckedRecord>;
}> {
  const { footer, window } = await open(objects, listed);
  async function* records(entries: SegmentEntry[]): AsyncGenerator<CheckedRecord> {
    for await (const { entry, record, state } of recordsOf(window, entries, listed.bytes))
      yield {
        entry,
        body: state === "damaged" ? undefined : record.subarray(RECORD_HEADER_BYTES),
      };
  }
  return { footer, records };
}

/** Returns whether the error says that an object, or a part of it, is lost. */
export function isLost(error: unknown): boolean {
  return (
    error instanceof ObjectMissing ||
    error instanceof ObjectDamaged ||
    error instanceof SegmentError
  );
}

async function open(objects: ObjectStore, listed: Listed) {
  const { footer, tail } = await readEnd(objects, listed, WINDOW_BYTES);
  const window = new Window(objects, listed.key, listed.bytes - tail.length, tail);
  return { footer, tail, window };
}

async function* recordsOf(window: Window, entries: SegmentEntry[], bytes: number) {
  for (const entry of entries) {
    const record = await recordOf(window, entry, bytes);
    yield { entry, record, state: compareRecord(record, entry) };
  }
}

/** Reads a record, and once more if it does not match: it may have been damaged in transit. */
export async function recordOf(
  window: Window,
  entry: SegmentEntry,
  bytes: number,
): Promise<Uint8Array> {
  const start = entry.offset - RECORD_HEADER_BYTES;
  const end = entry.offset + entry.length;
  // The object is truncated before the end of the record.
  if (end > bytes) return new Uint8Array(0);
  const record = await window.read(start, end, bytes);
  return compareRecord(record, entry) === "whole" ? record : await window.readAgain(start, end);
}

/** Returns the problem of an object outside of its records, if there is one. */
export async function frameProblem(
  window: Window,
  footer: Footer,
  footerLength: number,
  bytes: number,
): Promise<string | undefined> {
  try {
    checkLength(footer, bytes, footerLength);
    checkMagic(await window.read(0, MAGIC_BYTES, MAGIC_BYTES));
    return undefined;
  } catch (error) {
    if (error instanceof SegmentError) return error.message;
    throw error;
  }
}

export function countOf(mismatched: number, { entries }: Footer): string | undefined {
  if (mismatched === 0) return undefined;
  return `${mismatched} of ${entries.length} records are not what was written`;
}

/** Makes a minimal row for a session whose record is lost: its batches need one to be listed. */
export function bareSession({ sessionId, projectId, receivedAt }: SegmentEntry): SessionRecord {
  const row = {
    id: String(sessionId),
    project_id: projectId === 0 ? null : projectId,
    recorded: true,
    started_at: new Date(receivedAt).toISOString(),
    user_country: "UN",
    user_state: "",
    user_city: "",
  };
  return row;
}

/** The part of an object that is buffered in memory. */
export class Window {
  readonly #objects: ObjectStore;
  readonly #key: string;
  #start: number;
  #bytes: Uint8Array;

  constructor(objects: ObjectStore, key: string, start: number, bytes: Uint8Array) {
    this.#objects = objects;
    this.#key = key;
    this.#start = start;
    this.#bytes = bytes;
  }

  /** Reads ahead up to `last` if needed. */
  async read(start: number, end: number, last: number): Promise<Uint8Array> {
    if (start < this.#start || end > this.#start + this.#bytes.length) {
      const to = Math.min(last, Math.max(end, start + WINDOW_BYTES));
      this.#bytes = await this.#objects.read(this.#key, start, to);
      this.#start = start;
    }
    return this.#bytes.subarray(start - this.#start, end - this.#start);
  }

  async readAgain(start: number, end: number): Promise<Uint8Array> {
    return await this.#objects.read(this.#key, start, end);
  }
}
