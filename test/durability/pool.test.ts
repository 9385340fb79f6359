import { expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { aBatch } from "../support/batches.ts";
import { eventually, undelayedMs } from "../support/eventually.ts";
import { statusOf } from "../support/requests.ts";

const CALLERS = 200;

test("while slow readers hold every connection to the database, batches are answered in time and none is lost", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  expect((await app.append(session, aBatch({ salt: "before" }))).status).toBe(200);
  // Readers wait for the table, and with them the pool's connections.
  const blocker = await app.sql.reserve();
  await blocker`begin`;
  await blocker`lock table notifications in access exclusive mode`;
  const waiting = Array.from({ length: CALLERS }, () =>
    statusOf(app.fetch("/notifications?start=0&size=1")),
  );
  await eventually("the pool is taken", async () => {
    const [row] = await app.sql<[{ count: number }]>`
      select count(*)::integer as count from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`;
    return row.count >= 8;
  });
  const startedMs = undelayedMs();
  const sending = Array.from({ length: 20 }, (_, i) =>
    statusOf(app.append(session, aBatch({ salt: `held${i}` }))),
  );
  await Bun.sleep(1500);
  await blocker`commit`;
  blocker.release();
  const statuses = await Promise.all(sending);
  expect(undelayedMs() - startedMs).toBeLessThan(16_000);
  for (const status of statuses) expect([200, 503]).toContain(Number(status));
  expect(new Set(await Promise.all(waiting))).toEqual(new Set([200]));
  const acknowledged = statuses.filter((status) => status === 200).length;
  expect(await app.batches(session)).toHaveLength(1 + acknowledged);
});
