import { afterEach, expect, setSystemTime, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { aBatch } from "../support/batches.ts";

const HOUR_MS = 3_600_000;

afterEach(() => {
  setSystemTime();
});

test("a clock that jumps by hours loses no batch and gives no session id twice", async () => {
  await using app = await TestApp.start();
  const startedMs = Date.now();
  const old = await app.aSession();
  const ids = new Set([old.sessionID]);
  let sent = 0;
  for (const hours of [0, 3, -2, 30, 0]) {
    setSystemTime(new Date(startedMs + hours * HOUR_MS));
    const fresh = await app.aSession();
    expect(ids.has(fresh.sessionID)).toBe(false);
    ids.add(fresh.sessionID);
    for (const session of [old, fresh]) {
      const batch = aBatch({ salt: `${hours}/${sent++}` });
      const { status } = await app.append(session, batch);
      // Ahead of its time the old session's token may have expired, which clients answer with a new session.
      expect([200, 401]).toContain(status);
      if (status === 200) expect(await app.batches(session)).toContainEqual(new Uint8Array(batch));
    }
  }
});
