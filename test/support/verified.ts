import { segmentKey } from "../../src/log/segment.ts";
import { findKnownArchive } from "../../src/log/verify/archives.ts";
import { Evidence, findKnownSegment } from "../../src/log/verify/evidence.ts";
import { type Finding } from "../../src/log/verify/finding.ts";
import { Verify, type VerifyOptions, takeOutLost } from "../../src/log/verify/verify.ts";
import { type TestApp, type TestSession } from "./app.ts";
import { aBatch } from "./batches.ts";
import { segmentKeys } from "./damage.ts";
import { aFile, sha256Of, upload } from "./images.ts";
import { untilIndexed } from "./ingest-tables.ts";

type Target = Pick<TestApp, "sql" | "objects">;

/** Checks the app's store, and returns what is found and the numbers of what was checked. */
export async function verified(app: Target, options: Partial<VerifyOptions> = {}) {
  const verify = new Verify(app, { quick: false, ...options });
  const found = await Array.fromAsync(verify.run());
  return { found, checked: verify.checked };
}

/** Takes out rows that a check has found to be missing. */
export async function takenOut({ sql, objects }: Target, project?: number): Promise<Finding[]> {
  const evidence = new Evidence(objects, [
    async () => await findKnownSegment(sql, objects),
    async () => await findKnownArchive({ sql, objects }),
  ]);
  return await Array.fromAsync(takeOutLost({ sql, objects }, { project, evidence }));
}

/** Returns the nth of many different batches. */
export function batch(nth: number): Uint8Array {
  return aBatch({ messages: 2, bytes: 1000, salt: `batch ${nth}` });
}

/** Sends batches, each of which is stored in a segment of its own; returns the keys of these. */
export async function sendBatches(
  app: TestApp,
  session: TestSession,
  ...numbers: number[]
): Promise<string[]> {
  return await addedBy(app, async () => {
    for (const nth of numbers) {
      const answer = await app.append(session, batch(nth));
      if (answer.status !== 200) throw new Error(`append answered ${answer.status}`);
    }
  });
}

/** Sends an image, and returns the keys of the segments that have its chunks and its record. */
export async function sendImage(
  app: TestApp,
  session: TestSession,
  name: string,
  content: string,
): Promise<string[]> {
  return await addedBy(app, async () => {
    const answer = await upload(app, session, [aFile(name, content)]);
    if (answer.status !== 200) throw new Error(`images answered ${answer.status}`);
    await untilIndexed(app);
  });
}

async function addedBy(app: TestApp, work: () => Promise<void>): Promise<string[]> {
  const before = new Set(await segmentKeys(app.objects));
  await work();
  return (await segmentKeys(app.objects)).filter((key) => !before.has(key));
}

/** Returns the keys of segments that are marked as unreadable. */
export async function marksOf({ sql }: Target): Promise<string[]> {
  const rows = await sql<{ id: string }[]>`
    select segment_id as id from unreadable_segments order by 1`;
  return rows.map(({ id }) => segmentKey(id));
}

export const missingSegment = (key: string): Finding => ({
  what: "segment",
  state: "missing",
  key,
  reason: "the object is gone",
});

/** Finding about a session, by default of the project 1. */
export const lostOf = (
  { sessionID }: Pick<TestSession, "sessionID">,
  state: Finding["state"],
  { batches = 0, images = 0, projectId = 1 }: Partial<Record<Count, number>>,
): Finding => ({ what: "session", state, sessionID, projectId, batches, images });
type Count = "batches" | "images" | "projectId";

/** Finding about an image of the project 1; without content one of the previous version. */
export const lostImage = (name: string, state: Finding["state"], content?: string): Finding => ({
  what: "image",
  state,
  projectId: 1,
  name,
  sha256: content === undefined ? null : sha256Of(content),
});
