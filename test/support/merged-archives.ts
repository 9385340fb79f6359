import { pack } from "msgpackr";

import { type ArchivedBatch } from "../../src/archives/piece-index.ts";
import { insertArchives } from "../../src/archives/piece.ts";
import { CheckedArchive } from "../../src/archives/recovery/checked-archive.ts";
import { type TestApp } from "./app.ts";
import { type Session, type Written, sessionArchives, sessionOf } from "./archive-objects.ts";

type Target = Pick<TestApp, "sql" | "objects">;

/** Merges archives of one project and day, or one session in them, into one, whose rows take the place of theirs. */
export async function merged(
  app: Target,
  inputs: Written[],
  commit = true,
  only?: string,
): Promise<Written> {
  const [first] = inputs;
  if (first === undefined) throw new Error("nothing to merge");
  const sessions = new Map<bigint, Session>();
  for (const { key, archive } of inputs) {
    const checked = await CheckedArchive.open(app.objects, { key, bytes: archive.bytes });
    const onBatch = async (sessionId: bigint, batch: ArchivedBatch, body: Uint8Array) => {
      await Promise.resolve();
      sessionOf(sessions, sessionId, archive.projectId).batches.push({
        batch,
        body: Buffer.from(body),
      });
    };
    for await (const part of checked.parts(onBatch)) {
      if (!("piece" in part)) throw new Error("only sessions can be merged here");
      const { piece, sessions: starts, uses, rows } = part.piece;
      const bodies = [
        ...starts.map((row) => ({ kind: "session" as const, row })),
        ...uses.map((row) => ({ kind: "image" as const, row })),
      ];
      for (const [nth, { kind, row }] of bodies.entries()) {
        const head = {
          kind,
          flags: 0,
          projectId: archive.projectId,
          sessionId: piece.sessionId,
          receivedAt: 0,
        };
        const origin = rows[nth] ?? { segmentId: "", offset: 0 };
        sessionOf(sessions, piece.sessionId, archive.projectId).rows.push({
          ...origin,
          head,
          body: pack(row),
        });
      }
    }
  }
  for (const id of sessions.keys())
    if (only !== undefined && String(id) !== only) sessions.delete(id);
  const ids = inputs.map(({ archive }) => archive.id);
  const [output] = sessionArchives(sessions, ids);
  if (output === undefined) throw new Error("nothing was merged");
  await app.objects.put(output.key, output.bytes);
  if (commit)
    await app.sql.begin(async (transaction) => {
      await transaction`delete from archives where id = any(${ids})`;
      await transaction`delete from session_pieces where archive_id = any(${ids})`;
      await insertArchives(transaction, [output.archive], output.pieces);
    });
  return output;
}
