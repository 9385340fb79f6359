import { expect, test } from "bun:test";
import { pino } from "pino";

import { startServer } from "../../src/processes/server.ts";
import { metric, sessionRow } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { aBatch } from "../support/batches.ts";
import { indexState } from "../support/index-state.ts";

const app = TestApp.forTests();

test("a session that is not to be recorded has a row that says so", async () => {
  const session = await app.aSession({ doNotRecord: true, userID: "shy" });
  expect(await sessionRow(app, session)).toMatchObject({ recorded: false, userID: "shy" });
});

test("its batches are answered 200, counted and not stored", async () => {
  const session = await app.aSession({ doNotRecord: true });
  const discarded = 'floodgate_batches_total{outcome="discarded"}';
  const before = {
    ...(await indexState(app.sql, app.objects)),
    metric: await metric(app, discarded),
  };
  for (const path of ["/v1/ios/append", "/v1/ios/late", "/v1/mobile/i", "/v1/mobile/late"])
    expect((await app.append(session, aBatch({ salt: path }), path)).status).toBe(200);
  expect(await app.batches(session)).toEqual([]);
  const after = await indexState(app.sql, app.objects);
  expect(after).toMatchObject({ batches: before.batches, segments: before.segments });
  expect(await metric(app, discarded)).toBe(before.metric + 4);
});

test("its batches are still held to the limits", async () => {
  const session = await app.aSession({ doNotRecord: true });
  expect((await app.append(session, new Uint8Array())).status).toBe(400);
  expect((await app.append(session, new Uint8Array(2_000_000))).status).toBe(413);
});

test("another server finds in the database that a session is not to be recorded", async () => {
  const session = await app.aSession({ doNotRecord: true });
  const log = pino({ level: "silent" });
  const server = await startServer(app.config, app.databaseUrl, { log });
  try {
    const answer = await fetch(new URL("/v1/ios/append", server.url), {
      method: "POST",
      body: aBatch(),
      headers: { authorization: `Bearer ${session.token}` },
    });
    expect(answer.status).toBe(200);
  } finally {
    await server[Symbol.asyncDispose]();
  }
  expect(await app.batches(session)).toEqual([]);
});
