import { unpack } from "msgpackr";

import { type ObjectStore } from "../platform/objects/objects.ts";
import { Lost } from "../platform/objects/read-faults.ts";
import { type Footer, footerBytes, readFooter } from "./footer.ts";
import { type Kind, RECORD_HEADER_BYTES, SegmentError, recordBody } from "./record.ts";
import { segmentIdOf } from "./segment.ts";
import { SegmentReader } from "./segment-reader.ts";

// Length that covers most footers, and whole objects of a quiet server.
const TAIL_BYTES = 64 * 1024;

/**
 * Columns, as SQL, of the rows in records. Columns that only a newer schema has keep their defaults
 * and values.
 */
export const COLUMNS = {
  // Columns of a project, in addition to created_at.
  project: `id, name, project_key, platform, active, sample_rate, beacon_bytes_max, daily_bytes_max,
    record_canvas, canvas_quality, canvas_fps, session_ms, changed_at`,
  session: `id, project_id, recorded, started_at, platform, tracker_version, rev_id, user_uuid, user_id, user_os, user_os_version,
    user_browser, user_browser_version, user_device, user_device_type, user_country, user_state, user_city, timezone,
    device_memory_kib, screen_width, screen_height, performance`,
  // Columns of an image without a hash, in addition to project_id.
  image: `name, session_id, kind, content_type, bytes, crc32, uses, stored_at, chunk_segments, chunk_offsets, chunk_lengths`,
};

/** Object as the store lists it. */
export type Listed = { key: string; bytes: number };

/*
 * Rows in records, with those of their columns that are used here. Each change of a project is a
 * record of its row, in which `created_at`, too, is the time of the change.
 */
export type ProjectRecord = {
  id: number;
  project_key: string;
  created_at: string;
  changed_at: string;
};
export type SessionRecord = { id: string; project_id: number | null };
export type ImageRecord = {
  project_id: number;
  name: string;
  session_id: string;
  kind: "image" | "frames";
  content_type: string;
  bytes: number;
  crc32: number;
  uses: number;
  stored_at: string;
  /** Ids of segments; null is the segment that the record is in. */
  chunk_segments: (string | null)[];
  chunk_offsets: number[];
  chunk_lengths: number[];
  /** SHA-256 in hex; undefined for images of earlier versions. */
  sha256?: string;
};
/**
 * An image record with a hash; `network` is a short hash of the client's network, or null if it is
 * unknown or the record is not an image.
 */
export type HashedImage = ImageRecord & { sha256: string; network: number | null };

export function isHashed(image: ImageRecord): image is HashedImage {
  return image.sha256 !== undefined;
}

/** Content of a stored segment for the index: its footer, and the rows in its records. */
export type StoredSegment = Footer &
  Listed & { projects: ProjectRecord[]; sessions: SessionRecord[]; images: ImageRecord[] };

/**
 * Reads a segment without the bodies of batches and chunks. Throws SegmentError if the object is
 * not a whole segment.
 */
export async function readStored(
  objects: ObjectStore,
  { key, bytes }: Listed,
): Promise<StoredSegment> {
  const { footer, tail } = await readEnd(objects, { key, bytes }, TAIL_BYTES);
  const segment = emptySegment(footer, { key, bytes });
  for await (const { kind, body } of rowBodies(objects, footer, tail, bytes))
    segment[ROWS[kind]].push(unpack(body));
  return segment;
}

export function emptySegment(footer: Footer, { key, bytes }: Listed): StoredSegment {
  return { ...footer, key, bytes, projects: [], sessions: [], images: [] };
}

/**
 * Reads the footer, and at least that much of the object's end. Throws SegmentError if the object
 * has no valid footer.
 */
export async function readEnd(
  objects: ObjectStore,
  { key, bytes }: Listed,
  tailBytes: number = TAIL_BYTES,
): Promise<{ footer: Footer; tail: Uint8Array }> {
  const id = segmentIdOf(key);
  if (id === undefined) throw new SegmentError("the key is not that of a segment");
  const end = await readEndOf(objects, { key, bytes }, tailBytes);
  if (end.footer.id !== id) throw new SegmentError("the id of the segment differs from its key");
  return end;
}

/** Reads the end of a segment or an archive, whatever its key. Throws SegmentError. */
export async function readEndOf(
  objects: ObjectStore,
  { key, bytes }: Listed,
  tailBytes: number = TAIL_BYTES,
): Promise<{ footer: Footer; tail: Uint8Array }> {
  let tail = await objects.read(key, Math.max(0, bytes - tailBytes), bytes);
  const needed = footerBytes(tail);
  if (needed > bytes) throw new SegmentError("the footer is longer than the segment");
  if (needed > tail.length) tail = await objects.read(key, bytes - needed, bytes);
  return { footer: readFooter(tail), tail };
}

export const ROWS = { project: "projects", session: "sessions", image: "images" } as const;
type RowKind = keyof typeof ROWS;
type RowBody = { kind: RowKind; body: Uint8Array };

/** Tells whether the body of a record of that kind is a row. */
export function isRowKind(kind: Kind): kind is RowKind {
  return kind in ROWS;
}

/** Yields the bodies of rows, from the tail if that is the whole object. */
async function* rowBodies(
  objects: ObjectStore,
  { id, entries }: Footer,
  tail: Uint8Array,
  bytes: number,
): AsyncGenerator<RowBody> {
  const places = entries.flatMap(({ kind, offset, length }) =>
    isRowKind(kind) ? [{ kind, segmentId: id, offset, length }] : [],
  );
  if (tail.length === bytes)
    for (const { kind, offset, length } of places)
      yield {
        kind,
        body: recordBody(tail.subarray(offset - RECORD_HEADER_BYTES, offset + length)),
      };
  else
    for await (const { place, body } of new SegmentReader(objects).read(places))
      if (body instanceof Lost) throw body.cause;
      else yield { kind: place.kind, body };
}
