import { batchKindOf } from "../log/batch-kind.ts";
import { batchBody } from "../log/segment-reader.ts";
import { FLAG } from "../log/record.ts";
import { walkAnalytics } from "./analytics.ts";
import { FrameError, type Frames, walkManyFrames } from "./frames.ts";
import { walkManyWebFrames } from "./web-frames.ts";

/** Walks over the frames of a stored batch; resolves with undefined if it is malformed. */
export async function walkStored(
  body: Uint8Array,
  stored: { flags: number; bytes: number },
): Promise<Frames | undefined> {
  const kind = batchKindOf(stored.flags);
  if ((stored.flags & FLAG.quarantined) !== 0 || kind === "unknown") return undefined;
  const content = batchBody(body, stored);
  try {
    if (kind === "sdk") return walkAnalytics(content);
    return await (kind === "mobile" ? walkManyFrames(content) : walkManyWebFrames(content, kind));
  } catch (error) {
    // A batch that another version stored may be malformed by today's rules.
    if (error instanceof FrameError) return undefined;
    throw error;
  }
}
