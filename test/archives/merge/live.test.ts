import { expect, test } from "bun:test";

import { mergeEveryS } from "../../../src/archives/merge/merger.ts";
import { TestApp, type TestSession } from "../../support/app.ts";
import { ArchiveStore, mergerOf } from "../../support/archive-store.ts";
import { archiveAll, archivedOf, sweep, toBytes } from "../../support/archives.ts";
import { aBatch } from "../../support/batches.ts";

test.each(["files", "s3"] as const)(
  "what servers store on %s and archivers archive is merged, and read at every moment of that",
  async (kind) => {
    await using app = await TestApp.start({ store: kind });
    const sessions = [await app.aSession(), await app.aSession(), await app.aSession()];
    const sent = new Map<TestSession, Uint8Array[]>(sessions.map((session) => [session, []]));
    const merger = mergerOf(app);
    const ended = new AbortController();
    const reading = readRepeatedly(app, sent, ended.signal);
    for (let round = 0; round < 6; round++) {
      for (const [nth, session] of sessions.entries()) {
        const batch = aBatch({ salt: `${nth} ${round}` });
        const headers = round % 2 === 0 ? {} : { "content-encoding": "gzip" };
        const body = round % 2 === 0 ? batch : Bun.gzipSync(Uint8Array.from(batch));
        expect((await app.append(session, body, undefined, headers)).status).toBe(200);
        sent.get(session)?.push(batch);
      }
      await archiveAll(app);
      if (round % 3 === 2) expect(await merger.look()).toBe(1);
    }
    ended.abort();
    expect(await reading).toBeGreaterThan(0);
    await app.sql`update object_garbage set due_at = now()`;
    await sweep(app);
    for (const [session, batches] of sent) {
      expect(await app.batches(session)).toEqual(batches);
      const { bodies, rows } = await archivedOf(app, session);
      expect(toBytes({ bodies })).toEqual(batches);
      expect(rows).toMatchObject([{ id: session.sessionID }]);
    }
    const archives = await app.sql`select kind from archives where kind = 'sessions'`;
    expect([...archives]).toHaveLength(1);
    expect(merger.results.every(({ outcome }) => outcome === "merged")).toBe(true);
  },
);

test("archives are merged once the oldest is old enough, or once they are many", async () => {
  await using store = await ArchiveStore.open();
  const merger = mergerOf(store, { everyS: 60 });
  for (let nth = 0; nth < 3; nth++) await store.addRecords("projects", []);
  expect(await merger.look()).toBe(0);
  await store.sql`
    update archives set created_at = now() - interval '61 seconds' where id = (select id from archives limit 1)`;
  expect(await merger.look()).toBe(1);
  expect(await merger.look()).toBe(0);
  for (let nth = 0; nth < 200; nth++) await store.addRecords("projects", [], { projectId: 2 });
  expect(await merger.look()).toBe(1);
  expect((await store.archives()).map(({ projectId }) => projectId)).toEqual([]);
});

test("the age from which archives are merged is that from which segments are archived, within bounds", () => {
  expect([0.1, 60, 90, 3600, 86_400].map(mergeEveryS)).toEqual([60, 60, 90, 3600, 3600]);
});

/** Reads sessions until the signal; each read must give all that was sent before. Returns their number. */
async function readRepeatedly(
  app: TestApp,
  sent: Map<TestSession, Uint8Array[]>,
  signal: AbortSignal,
): Promise<number> {
  let reads = 0;
  while (!signal.aborted)
    for (const [session, batches] of sent) {
      const before = batches.length;
      const read = await app.batches(session);
      expect(read.length).toBeGreaterThanOrEqual(before);
      // One that is being sent may be there already.
      expect(read.slice(0, before)).toEqual(batches.slice(0, before));
      reads++;
    }
  return reads;
}
