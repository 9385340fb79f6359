import { expect, test } from "bun:test";

import { TestApp, type TestSession } from "../../support/app.ts";
import { mergerOf } from "../../support/archive-store.ts";
import { archiveAll, archivedOf, toBytes } from "../../support/archives.ts";
import { aBatch } from "../../support/batches.ts";

test("what servers store and archivers archive is merged, while more arrives", async () => {
  await using app = await TestApp.start();
  const sessions = [await app.aSession(), await app.aSession(), await app.aSession()];
  const sent = new Map<TestSession, Uint8Array[]>(sessions.map((session) => [session, []]));
  const merger = mergerOf(app);
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
  for (const [session, batches] of sent) {
    const { bodies, rows } = await archivedOf(app, session);
    expect(toBytes({ bodies })).toEqual(batches);
    expect(rows).toMatchObject([{ id: session.sessionID }]);
  }
  const archives = await app.sql`select kind from archives where kind = 'sessions'`;
  expect([...archives]).toHaveLength(1);
  expect(merger.results.every(({ outcome }) => outcome === "merged")).toBe(true);
});
