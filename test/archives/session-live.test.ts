import { expect, test } from "bun:test";

import { TestApp, splitBatches } from "../support/app.ts";
import { mergerOf } from "../support/archive-store.ts";
import { archiveAll, dropAll, sweep } from "../support/archives.ts";
import { aBatch } from "../support/batches.ts";
import { objectOf } from "../support/answers.ts";

const BATCHES = 36;

test("a session is read whole and in order while it is sent, archived, merged and dropped", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  const path = `/v1/sessions/${session.sessionID}`;
  const sent: bigint[] = [];
  const ended = new AbortController();
  const sending = async () => {
    for (let nth = 0; nth < BATCHES; nth++) {
      const batch = aBatch({ messages: 1, bytes: 900, salt: `${nth}` });
      expect((await app.append(session, batch)).status).toBe(200);
      sent.push(Bun.hash.xxHash3(batch));
      // Every third one is sent again later, in whatever stage it is then.
      const old = aBatch({ messages: 1, bytes: 900, salt: `${Math.floor(nth / 2)}` });
      if (nth % 3 === 2) expect((await app.append(session, old)).status).toBe(200);
    }
    ended.abort();
  };
  let rounds = 0;
  const moving = async () => {
    const merger = mergerOf(app, { graceS: 0 });
    while (!ended.signal.aborted) {
      await archiveAll(app);
      await merger.look();
      await dropAll(app);
      await sweep(app);
      rounds++;
    }
  };
  let reads = 0;
  const reading = async () => {
    while (!ended.signal.aborted) {
      const before = sent.length;
      const answer = await app.fetch(`${path}/batches`, {
        headers: { accept: "application/octet-stream" },
      });
      const read = splitBatches(await answer.bytes()).map((one) => Bun.hash.xxHash3(one));
      expect(read.length).toBeGreaterThanOrEqual(before);
      expect(read).toEqual([...sent, ...read.slice(sent.length)].slice(0, read.length));
      const { batches } = await objectOf(app.fetch(path));
      expect(Object(batches).count).toBeGreaterThanOrEqual(read.length);
      reads++;
    }
  };
  await Promise.all([sending(), moving(), reading(), reading()]);
  expect(Math.min(rounds, reads)).toBeGreaterThan(1);
  expect((await objectOf(app.fetch(path)))["batches"]).toMatchObject({ count: BATCHES });
});
