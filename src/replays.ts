import { findImage, imageBytes, type ImageRow } from "./images/reading.ts";
import { framesOf, listFrames } from "./images/frames.ts";
import { firstIndexOf, replayRecords } from "./ingest/replay-records.ts";
import { type SessionRecordsDeps } from "./archives/session-records.ts";
import { SegmentReader } from "./log/segment-reader.ts";
import { type Sql } from "./platform/database/database.ts";
import { Replays } from "./replay/service.ts";
import { getSession } from "./sessions/list.ts";

// Files of frames of a session that are replayed at most: further ones are left out.
const FRAME_FILES_MAX = 100_000;

/** Builds the replay files, which the command line needs, too. */
export function buildReplays(records: SessionRecordsDeps): Replays {
  const { sql, objects, faults } = records;
  const reader = new SegmentReader(objects, faults);
  return new Replays({
    records,
    startedAt: async (sessionId) => (await getSession(sql, sessionId)).startedAt,
    mobile: { firstIndex: firstIndexOf, records: replayRecords },
    images: (sessionId) => framesIn(sql, reader, sessionId),
  });
}

function framesIn(sql: Sql, reader: SegmentReader, sessionId: bigint) {
  let project: Promise<number> | undefined;
  async function* bytes({ name, sha256 }: ImageRow, start: number, end: number) {
    project ??= getSession(sql, sessionId).then(({ projectId }) => Number(projectId ?? 0));
    const selection = { session: sessionId, sha256: sha256 ?? undefined };
    const image = await findImage(sql, await project, name, selection);
    yield* imageBytes({ sql, reader }, image, { start, end });
  }
  return {
    list: async () => await listFrames(sql, sessionId, FRAME_FILES_MAX),
    bytes,
    frames: (image: ImageRow) => framesOf(image.name, bytes(image, 0, image.bytes)),
  };
}
