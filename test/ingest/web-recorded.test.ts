import { describe, expect, test } from "bun:test";

import { metric, sessionRow } from "../support/answers.ts";
import { TestApp, type TestSession } from "../support/app.ts";
import { type ReadBatch, readBatches } from "../support/read-batches.ts";
import { RECORDED, type TrackerRequest, trackerRequests } from "../support/tracker-requests.ts";

/** Numbers of batches and messages that the tracker wrote in each session. */
const WRITTEN = {
  v1: [2, 524],
  v2: [12, 543],
  "v2-timer": [11, 569],
  "v2-big": [10, 6454],
  "v2-order": [8, 454],
} as const;

const app = TestApp.forTests();

async function sent(session: TestSession, requests: TrackerRequest[]): Promise<void> {
  for (const { path, headers, body } of requests)
    expect((await app.append(session, body, path, headers)).status).toBe(200);
}

/** Reads the batches in an order that does not depend on that of their commit. */
async function sorted(session: TestSession): Promise<ReadBatch[]> {
  const batches = await readBatches(app, session);
  return batches.toSorted((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
}

describe.each(RECORDED)("the recorded session %s", (name) => {
  const requests = trackerRequests(name);

  test("is stored and decoded to the last byte", async () => {
    const session = await app.aSession();
    await sent(session, requests);
    const batches = await readBatches(app, session);
    const messages = batches.flatMap((batch) => batch.messages ?? []);
    expect([batches.length, messages.length]).toEqual([...WRITTEN[name]]);
    for (const message of messages) expect(message).toContainKey("fields");
    for (const { kind, header } of batches)
      expect(["", "web", "player", "assets", "devtools", "analytics"].indexOf(kind)).toBe(
        Number(header?.["version"]),
      );
    const row = await sessionRow(app, session);
    expect(row["batches"]).toMatchObject({
      count: batches.length,
      messages: messages.length,
      quarantined: 0,
    });
  });

  test("is the same messages in the order in which they were sent, in reverse, and twice", async () => {
    const [inOrder, reversed, twice] = [
      await app.aSession(),
      await app.aSession(),
      await app.aSession(),
    ];
    const duplicates = 'floodgate_batches_total{outcome="duplicate"}';
    const before = await metric(app, duplicates);
    await sent(inOrder, requests);
    await sent(reversed, requests.toReversed());
    await sent(twice, [...requests, ...requests]);
    const expected = await sorted(inOrder);
    expect(await sorted(reversed)).toEqual(expected);
    expect(await sorted(twice)).toEqual(expected);
    expect(await metric(app, duplicates)).toBe(before + expected.length);
    for (const session of [inOrder, reversed, twice])
      expect(await app.batches(session, "?quarantined=true")).toEqual([]);
  });
});
