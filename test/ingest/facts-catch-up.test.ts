import { expect, test } from "bun:test";
import { pino } from "pino";

import { FactsCatchUp } from "../../src/ingest/facts-catch-up.ts";
import { segmentKey } from "../../src/log/segment.ts";
import { TestApp } from "../support/app.ts";
import { aBatch, encodeBatch, encodeMessage } from "../support/batches.ts";
import { eventually } from "../support/eventually.ts";
import { sessionFacts } from "../support/ingest-tables.ts";

const LOG = pino({ level: "silent" });

/** Forgets all facts, as if their process had been killed before it wrote them. */
async function forgetFacts({ sql }: TestApp): Promise<void> {
  await sql`
    update sessions set events = 0, clicks = 0, page_views = 0, errors = 0, first_at = null, last_at = null,
      received_at = null, duration_ms = 0, labels = '{}', pages = '{}', dated_labels = '{}'`;
  await sql`update segments set facts_written = false, created_at = now() - interval '1 minute'`;
}

test("facts that a killed process did not write are read from its segments, once by all who do", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  for (const nth of [1, 2, 3]) {
    const click = encodeMessage(100, 1_760_000_000_000 + nth, "Buy", 1, 2);
    const user = encodeMessage(94, 1_760_000_000_000 + nth, `user ${nth}`);
    await app.append(session, encodeBatch([user, click], { firstIndex: nth }));
  }
  const before = await sessionFacts(app.sql);
  expect(before[0]).toMatchObject({ events: 6n, clicks: 3n });
  await forgetFacts(app);
  const ending = new AbortController();
  const { sql, objects } = app;
  const running = [1, 2].map(
    async () => await new FactsCatchUp({ sql, objects, log: LOG }).run(ending.signal),
  );
  expect(await sessionFacts(app.sql)).toEqual(before);
  ending.abort();
  await Promise.all(running);
});

test("a segment that is lost does not keep others from being read", async () => {
  await using app = await TestApp.start();
  const kept = await app.aSession();
  await app.append(kept, aBatch({ salt: "kept", messages: 7 }));
  // The newest one is read first.
  const lost = await app.aSession();
  await app.append(lost, aBatch({ salt: "lost" }));
  await sessionFacts(app.sql);
  await forgetFacts(app);
  const [first] = await app.sql<{ id: string }[]>`
    select segment_id as id from batches where session_id = ${lost.sessionID}`;
  if (first === undefined) throw new Error("no segment");
  await app.objects.remove(segmentKey(first.id));
  const ending = new AbortController();
  const { sql, objects } = app;
  const running = new FactsCatchUp({ sql, objects, log: LOG }).run(ending.signal);
  await eventually("the other is read", async () => {
    const [row] = await sql`select events from sessions where id = ${kept.sessionID}`;
    return row?.["events"] === 7n;
  });
  const marked = await sql`select segment_id as id from unreadable_segments`;
  expect(marked.map(({ id }) => id)).toEqual([first.id]);
  ending.abort();
  await running;
});
