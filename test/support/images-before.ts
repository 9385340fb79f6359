import { crc32 } from "node:zlib";

import { type TestApp, type TestSession } from "./app.ts";
import { putSegment, segmentId } from "./made-segment.ts";

type Before = { name: string; content: string | Uint8Array; ageMs?: number; projectId?: number };

/** Returns the row of an image as the previous version records it. */
export function recordBefore(
  app: Pick<TestApp, "project">,
  { sessionID }: Pick<TestSession, "sessionID">,
  { name, content, ageMs = 0, projectId = app.project.id }: Before,
  chunks: { id: string | null; offset: number }[],
) {
  const bytes = Buffer.from(content);
  return {
    project_id: projectId,
    name,
    session_id: sessionID,
    kind: "image",
    content_type: "image/png",
    bytes: bytes.length,
    crc32: crc32(bytes),
    uses: 1,
    stored_at: new Date(Date.now() - ageMs).toISOString(),
    chunk_segments: chunks.map(({ id }) => id),
    chunk_offsets: chunks.map(({ offset }) => offset),
    chunk_lengths: chunks.map(() => bytes.length),
  };
}

/**
 * Stores an image like a process of the previous version: its chunk in a segment, its record in a
 * later one.
 */
export async function putBefore(
  app: Pick<TestApp, "project" | "objects">,
  session: Pick<TestSession, "sessionID">,
  image: Before,
) {
  const { sessionID } = session;
  const { ageMs = 0, projectId = app.project.id } = image;
  const chunk = { kind: "chunk", sessionID, projectId, body: Buffer.from(image.content) } as const;
  const { id, key, places } = await putSegment(app.objects, [chunk], { ageMs: ageMs + 1 });
  const row = recordBefore(app, session, image, [{ id, offset: places[0]?.offset ?? 0 }]);
  const record = { kind: "image", sessionID, projectId, body: row } as const;
  await putSegment(app.objects, [record], { id: segmentId(ageMs) });
  return { key, row };
}

/** Stores an image and indexes it with the statement of the previous version. */
export async function storedBefore(
  app: Pick<TestApp, "project" | "objects" | "sql">,
  session: Pick<TestSession, "sessionID">,
  image: Before,
) {
  const stored = await putBefore(app, session, image);
  await app.sql`
    insert into images (project_id, name, session_id, kind, content_type, bytes, crc32, uses, stored_at,
      chunk_segments, chunk_offsets, chunk_lengths)
    select project_id, name, session_id, kind, content_type, bytes, crc32, uses, stored_at, chunk_segments, chunk_offsets, chunk_lengths
    from jsonb_populate_recordset(null::images, ${JSON.stringify([stored.row])}::text::jsonb)
    on conflict (project_id, name) do update set uses = images.uses + excluded.uses`;
  return stored;
}
