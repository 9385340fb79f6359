import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";

import { openObjects } from "../../src/platform/objects/open-objects.ts";
import { metric, objectOf } from "../support/answers.ts";
import { KEYED, TestApp, type TestSession } from "../support/app.ts";
import { aBatch } from "../support/batches.ts";
import { keptLog } from "../support/damage.ts";
import { aFile, upload } from "../support/images.ts";
import { emptyTables, ingestTables, reindex } from "../support/ingest-tables.ts";
import { orphansOf } from "../support/orphans.ts";
import { Random } from "../support/random.ts";
import { type ServerBeside, serverBeside } from "../support/requests.ts";
import { S3Proxy, type S3Script, passes, refuses } from "../support/s3-proxy.ts";
import { UpdateApi, hashesOf } from "../support/updates.ts";

// The first run on a machine may install the S3 server.
setDefaultTimeout(120_000);

const LARGE = new Random(41).bytes(1_500_000);
const BATCHES = Array.from({ length: 5 }, (_, nth) =>
  aBatch({ messages: 3, bytes: 2000, salt: `${nth}` }),
);
const SESSIONS = 3;

const half: S3Script = async ({ forward, answer }) => {
  const whole = await forward();
  answer(whole.subarray(0, whole.length / 2));
};
const late: S3Script = async (exchange) => {
  await Bun.sleep(50);
  await exchange.forward();
  exchange.reset();
};
const FAULTS = [refuses(500, "InternalError"), half, late, passes];

/* A store of whose answers to GET three of four fail. */

const random = new Random(43);
const kept = keptLog();
let app: TestApp;
let proxy: S3Proxy;
let server: ServerBeside;
let sessions: TestSession[];

beforeAll(async () => {
  app = await TestApp.start({ store: "s3" });
  sessions = await Promise.all(Array.from({ length: SESSIONS }, () => app.aSession()));
  for (const batch of BATCHES)
    for (const session of sessions) expect((await app.append(session, batch)).status).toBe(200);
  const { s3 } = app.config;
  if (s3?.endpoint === undefined) throw new Error("the test's store is not S3");
  proxy = await S3Proxy.open(s3.endpoint);
  proxy.selects = ({ method }) => method === "GET";
  proxy.otherwise = async (exchange) =>
    await FAULTS[random.integer(0, FAULTS.length - 1)]?.(exchange);
  const config = { ...app.config, s3: { ...s3, endpoint: proxy.endpoint } };
  server = await serverBeside(app, { config, log: kept.log });
});

afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await app[Symbol.asyncDispose]();
  await proxy[Symbol.asyncDispose]();
});

test("sessions, images and builds are read whole", async () => {
  const parts = [aFile("small", "pixels"), aFile("large", LARGE)];
  const [session] = sessions;
  if (session === undefined) throw new Error("no session");
  expect((await upload(app, session, parts)).status).toBe(200);
  const api = (await UpdateApi.of(app)).at(server);
  const update = await api.published({ bytes: LARGE });
  const images = async (name: string) => {
    const answer = await fetch(`${server.url}/v1/images/${app.project.id}/${name}`, {
      headers: KEYED,
    });
    return [answer.status, hashesOf(await answer.bytes()).SHA256];
  };
  const ofSession = async ({ sessionID }: TestSession) =>
    await objectOf(fetch(`${server.url}/v1/sessions/${sessionID}/batches`, { headers: KEYED }));
  const expected = await Promise.all(
    sessions.map(
      async ({ sessionID }) => await objectOf(app.fetch(`/v1/sessions/${sessionID}/batches`)),
    ),
  );
  const [read, small, large, build] = await Promise.all([
    Promise.all(sessions.map(ofSession)),
    Promise.all(Array.from({ length: 4 }, async () => await images("small"))),
    Promise.all(Array.from({ length: 2 }, async () => await images("large"))),
    api.download(update).then((answer) => answer.bytes()),
  ]);
  expect(read).toEqual(expected);
  const { SHA256 } = hashesOf(Buffer.from("pixels"));
  expect(small).toEqual(small.map(() => [200, SHA256]));
  expect(large).toEqual(large.map(() => [200, hashesOf(LARGE).SHA256]));
  expect(hashesOf(build).SHA256).toBe(update.SHA256);
  expect(kept.lines).toEqual([]);
  expect(
    await metric(server, 'floodgate_missing_records_total{reason="damaged"}', Number.NaN),
  ).toBe(0);
  expect(proxy.seen.filter(({ method }) => method === "GET").length).toBeGreaterThan(40);
});

test("reindex and the collection of orphans find nothing wrong", async () => {
  await using objects = await openObjects({
    ...app.config,
    ...(app.config.s3 && { s3: { ...app.config.s3, endpoint: proxy.endpoint } }),
  });
  const before = await ingestTables(app.sql);
  await emptyTables(app.sql);
  expect(await reindex({ sql: app.sql, objects })).toMatchObject({
    damaged: 0,
    missing: 0,
    segments: before.segments.length,
  });
  expect(await ingestTables(app.sql)).toEqual(before);
  await app.sql`delete from segments where id = (select max(id::text)::uuid from segments)`;
  const orphans = orphansOf({ sql: app.sql, objects }, { graceMs: 0 });
  expect(await orphans.look()).toMatchObject({ adopted: 1, damaged: 0 });
});
