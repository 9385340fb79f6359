import { beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";

import { metric, refusalOf } from "../support/answers.ts";
import { TestApp, type TestSession } from "../support/app.ts";
import { aBatch } from "../support/batches.ts";
import { runCommand } from "../support/command.ts";
import { eventually } from "../support/eventually.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { aProject } from "../support/projects.ts";
import { Random } from "../support/random.ts";
import { RawConnection } from "../support/raw-connection.ts";
import { envOf } from "../support/server-process.ts";
import { uploadImage } from "../support/images.ts";
import { append, serverBeside } from "../support/requests.ts";

setDefaultTimeout(30_000);

const DAY_MS = 86_400_000;
const QUOTA_BYTES = 100_000;
const ENV = { QUOTA_BYTES_PER_DAY: String(QUOTA_BYTES) };
const USED_UP = "the project has used up its bytes of today (UTC)";
const TOLD_MS_MAX = 3000;
const APPLIED_MS_MAX = 5000;

/** Sends batches until one is refused; how many were not. */
async function fill(target: { url: string }, session: TestSession): Promise<number> {
  for (let stored = 0; ; stored++) {
    const { status } = await append(target, session, aBatch({ salt: crypto.randomUUID() }));
    if (status === 429) return stored;
    if (status !== 200 || stored > 1000) throw new Error(`answered ${status}`);
  }
}

async function storedBytes(app: TestApp, session: TestSession): Promise<number> {
  return (await app.batches(session)).reduce((sum, { length }) => sum + length, 0);
}

/** The usage that PostgreSQL knows, by project. */
async function usage({ sql }: TestApp): Promise<Map<number, number>> {
  const rows = await sql<{ id: number; bytes: number }[]>`
    select project_id as id, bytes::double precision as bytes from project_usage`;
  return new Map(rows.map(({ id, bytes }) => [id, bytes]));
}

/** Starts a session, waits until it is counted, and returns the count, too. */
async function aCountedSession(app: TestApp): Promise<{ session: TestSession; base: number }> {
  const session = await app.aSession();
  let base = 0;
  await eventually("its start is counted", async () => {
    base = (await usage(app)).get(app.project.id) ?? 0;
    return base > 0;
  });
  return { session, base };
}

describe("a project that has used up its quota", () => {
  const app = TestApp.forTests({ env: ENV });
  let session: TestSession;
  let base: number;

  beforeAll(async () => {
    ({ session, base } = await aCountedSession(app));
    await fill(app, session);
  });

  test("has stored all of it and at most one batch more", async () => {
    const bytes = await storedBytes(app, session);
    expect(base + bytes).toBeGreaterThanOrEqual(QUOTA_BYTES);
    expect(bytes).toBeLessThan(QUOTA_BYTES + 20_000);
  });

  test("gets 429 for starts, batches and images, with Retry-After until midnight or for an hour", async () => {
    const target = { url: app.url, projectID: app.projectID };
    for (const ask of [
      () => app.append(session, aBatch()),
      () => app.append(session, aBatch(), "/v1/mobile/late"),
      () => app.start(),
      () => uploadImage(target, session, "image", new Uint8Array(10)),
    ]) {
      const before = secondsToMidnight();
      const response = await ask();
      const retryAfter = Number(response.headers.get("retry-after"));
      expect(retryAfter).toBeLessThanOrEqual(Math.min(before, 3600));
      expect(retryAfter).toBeGreaterThanOrEqual(Math.min(secondsToMidnight(), 3600) - 1);
      expect(response.headers.get("access-control-allow-origin")).toBe("*");
      expect(await refusalOf(response)).toEqual([429, USED_UP]);
    }
    expect(await metric(app, 'floodgate_limited_total{limit="quota"}')).toBeGreaterThan(3);
  });

  test("is refused before its body is read", async () => {
    using raw = await RawConnection.open(app.url);
    const authorization = `Bearer ${session.token}`;
    raw.head("POST /v1/ios/append", { authorization, "content-length": 500_000 });
    expect((await raw.response()).status).toBe(429);
  });

  test("can be read as ever, and takes nothing from another project", async () => {
    expect((await app.fetch(`/v1/sessions/${session.sessionID}`)).status).toBe(200);
    expect((await app.batches(session)).length).toBeGreaterThan(5);
    const other = await aProject(app);
    const theirs = await app.aSession({ projectID: other.projectID });
    expect((await app.append(theirs, aBatch())).status).toBe(200);
  });

  test("is known to another server, and to one that starts later", async () => {
    await eventually("PostgreSQL knows", async () => {
      return (await usage(app)).get(app.project.id) === base + (await storedBytes(app, session));
    });
    await using later = await serverBeside(app);
    expect((await append(later, session, aBatch())).status).toBe(429);
  });
});

test("a server that stops writes what it counted last", async () => {
  await using app = await TestApp.start({ env: ENV });
  const session = await app.aSession();
  await fill(app, session);
  await app.stop();
  await using again = await serverBeside(app);
  expect((await append(again, session, aBatch())).status).toBe(429);
});

test("what one server stored counts on another within seconds, and no byte twice", async () => {
  await using app = await TestApp.start({ env: ENV });
  await using other = await serverBeside(app);
  const { session, base } = await aCountedSession(app);
  for (let i = 0; i < 6; i++) {
    const target = i % 2 === 0 ? app : other;
    expect((await append(target, session, aBatch({ salt: `${i}` }))).status).toBe(200);
  }
  expect(await fill(app, session)).toBeLessThan(6);
  const refuses = async () =>
    (await append(other, session, aBatch({ salt: crypto.randomUUID() }))).status === 429;
  await eventually("the other one refuses, too", refuses, TOLD_MS_MAX);
  const counted = async () =>
    (await usage(app)).get(app.project.id) === base + (await storedBytes(app, session));
  await eventually("every stored byte is counted once", counted, TOLD_MS_MAX);
});

test("images count as what is stored of them", async () => {
  await using app = await TestApp.start({ env: ENV });
  const { session, base } = await aCountedSession(app);
  const target = { url: app.url, projectID: app.projectID };
  const image = new Random(1).bytes(60_000);
  // The second one is known.
  for (const name of ["a", "a", "b"])
    expect((await uploadImage(target, session, name, image)).status).toBe(200);
  expect((await uploadImage(target, session, "c", image)).status).toBe(429);
  const counted = async () => (await usage(app)).get(app.project.id) === base + 2 * image.length;
  await eventually("both are counted", counted, TOLD_MS_MAX);
});

test("a new day begins at midnight UTC, and Retry-After leads to it", async () => {
  const clock = new FakeClock();
  await using app = await TestApp.start({ env: ENV, clock });
  const session = await app.aSession();
  await fill(app, session);
  const midnightMs = (Math.floor(clock.epochMs() / DAY_MS) + 1) * DAY_MS;
  clock.jump(midnightMs - 10_000 - clock.epochMs());
  // The token may have expired by then.
  const refused = await app.append(session, aBatch(), "/v1/ios/late");
  expect([refused.status, refused.headers.get("retry-after")]).toEqual([429, "10"]);
  clock.jump(10_000);
  const next = await app.aSession();
  expect((await app.append(next, aBatch())).status).toBe(200);
  expect(await fill(app, next)).toBeGreaterThan(4);
});

test("one project can be given its own quota, and the default again, while the server runs", async () => {
  await using app = await TestApp.start({ env: { QUOTA_BYTES_PER_DAY: "1000000000" } });
  const session = await app.aSession();
  const answers = async (status: number) =>
    (await app.append(session, aBatch({ salt: crypto.randomUUID() }))).status === status;
  expect(await answers(200)).toBe(true);
  await setDailyBytes(app, "10");
  await eventually("its own holds", async () => await answers(429), APPLIED_MS_MAX);
  await setDailyBytes(app, "default");
  await eventually("the default holds", async () => await answers(200), APPLIED_MS_MAX);
});

test("without a default only the projects that have a quota are counted", async () => {
  await using app = await TestApp.start();
  const small = await aProject(app, { dailyBytesMax: QUOTA_BYTES });
  const [free, bounded] = [
    await app.aSession(),
    await app.aSession({ projectID: small.projectID }),
  ];
  await fill(app, bounded);
  for (let i = 0; i < 20; i++)
    expect((await app.append(free, aBatch({ salt: `${i}` }))).status).toBe(200);
  await eventually("it is written", async () => (await usage(app)).size > 0, TOLD_MS_MAX);
  expect([...(await usage(app)).keys()]).toEqual([small.id]);
});

test("while usage cannot be written it is kept, and no request fails", async () => {
  await using app = await TestApp.start({ env: { QUOTA_BYTES_PER_DAY: "1000000" } });
  const { session, base } = await aCountedSession(app);
  await app.sql`alter table project_usage rename to away`;
  for (let i = 0; i < 3; i++) {
    expect((await app.append(session, aBatch({ salt: `${i}` }))).status).toBe(200);
    await Bun.sleep(600);
  }
  await app.sql`alter table away rename to project_usage`;
  const counted = async () =>
    (await usage(app)).get(app.project.id) === base + (await storedBytes(app, session));
  await eventually("all is counted", counted, TOLD_MS_MAX);
});

test("starts count, with all that they carry, and are refused once it is used up", async () => {
  await using app = await TestApp.start({ env: ENV });
  const performance = { note: "x".repeat(15_000) };
  await eventually("a start is refused", async () => {
    const { status } = await app.start({ performance, userUUID: crypto.randomUUID() });
    return status === 429;
  });
  const started = await app.sql`select from sessions`;
  expect(started.length).toBeGreaterThanOrEqual(QUOTA_BYTES / 20_000);
  expect(started.length).toBeLessThan(2 * (QUOTA_BYTES / 15_000));
  expect(await refusalOf(app.start())).toEqual([429, USED_UP]);
});

async function setDailyBytes(app: TestApp, bytes: string): Promise<void> {
  const args = ["project", "update", String(app.project.id), "--daily-bytes", bytes];
  expect((await runCommand(args, envOf(app))).code).toBe(0);
}

function secondsToMidnight(): number {
  return Math.ceil((DAY_MS - (Date.now() % DAY_MS)) / 1000);
}
