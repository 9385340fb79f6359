import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";

import { metric, objectOf } from "../support/answers.ts";
import { TestApp, type TestSession, splitBatches } from "../support/app.ts";
import { aBatch } from "../support/batches.ts";
import { EventStream } from "../support/event-stream.ts";
import { eventually, undelayedMs } from "../support/eventually.ts";
import { aUser, claim, mint, ping, pingAnswer, snapshot, watching } from "../support/presence.ts";
import { append, statusOf } from "../support/requests.ts";
import { ServerProcess, envOf } from "../support/server-process.ts";
import { shiftedClock } from "../support/shifted-clock.ts";

setDefaultTimeout(60_000);

const BUSES = process.env["TEST_LONG"] === undefined ? ["redis"] : ["redis", "postgres"];
const SHIFT_S = 600;
const TTL_MS = 2000;
// One second after the TTL, plus slack for a busy machine.
const OFFLINE_MS_MAX = TTL_MS + 1000 + 1500;
// Greater than the difference between clocks that are in sync.
const APART_MS = 250;
const PINGS = 9;
const KEY = { "x-server-key": "key-of-the-tests" };

describe.each(BUSES)("on machines whose clocks differ, over %s", (bus) => {
  let app: TestApp;
  let behind: ServerProcess;
  let right: ServerProcess;
  let ahead: ServerProcess;

  beforeAll(async () => {
    app = await TestApp.start({ redis: bus === "redis" });
    const env = {
      ...envOf(app),
      PRESENCE_TTL_S: String(TTL_MS / 1000),
      SERVER_KEYS: KEY["x-server-key"],
      TRUSTED_PROXIES: "127.0.0.0/8",
    };
    [behind, right, ahead] = await Promise.all([
      ServerProcess.start({ ...env, ...(await shiftedClock(-SHIFT_S)) }),
      ServerProcess.start(env),
      ServerProcess.start({ ...env, ...(await shiftedClock(SHIFT_S)) }),
    ]);
  });

  afterAll(async () => {
    await Promise.all([behind, right, ahead].map(async (server) => await server.kill()));
    await app[Symbol.asyncDispose]();
  });

  const all = () => [behind, right, ahead];

  test.concurrent("whoever pings is online everywhere, and offline everywhere after the TTL", async () => {
    const check = async (server: ServerProcess) => {
      const userid = aUser("ann");
      await ping(server, { userid, clientid: "phone", status: "0" });
      const [pingMs, pingUndelayedMs] = [performance.now(), undelayedMs()];
      for (const other of all())
        await eventually("it is known", async () => await online(other, userid), TTL_MS);
      for (const other of all()) {
        await eventually(
          "it is offline",
          async () => !(await online(other, userid)),
          OFFLINE_MS_MAX,
        );
        expect(performance.now() - pingMs).toBeGreaterThan(TTL_MS - 300);
      }
      expect(undelayedMs() - pingUndelayedMs).toBeLessThan(OFFLINE_MS_MAX);
    };
    await Promise.all(all().map(check));
  });

  test.concurrent("a device that pings now here, now there is never called offline, and its newest status counts", async () => {
    const userid = aUser("bob");
    const streams = await Promise.all(
      all().map(async (server) => await EventStream.open(server, watching(userid))),
    );
    const statuses = ["0", "1", "2"];
    for (let nth = 0; nth < PINGS; nth++) {
      const server = all().at(-1 - (nth % 3)) ?? right;
      await ping(server, { userid, clientid: "phone", status: statuses[nth % 3] ?? "0" });
      await Bun.sleep(TTL_MS / 4);
    }
    for (const stream of streams) {
      for (let nth = 0; nth < PINGS; nth++) {
        const status = statuses[nth % 3] ?? "0";
        let event = await stream.presence();
        // A process that may have missed messages of another one tells the present once more.
        if (event.status === statuses[(nth + 2) % 3] && nth > 0) event = await stream.presence();
        expect(event).toMatchObject({ userid, online: true, status });
      }
      stream[Symbol.dispose]();
    }
  });

  test.concurrent("an event id of one goes on at another, without a reset and without a loss", async () => {
    for (const [from, to] of [
      [ahead, behind],
      [behind, ahead],
    ] as const) {
      const userid = aUser("cid");
      const before = await EventStream.open(from, watching(userid));
      await ping(from, { userid, clientid: "phone", status: "0" });
      const { id } = await before.presence();
      before[Symbol.dispose]();
      await Bun.sleep(APART_MS);
      await ping(to, { userid, clientid: "phone", status: "1" });
      using after = await EventStream.open(to, watching(userid), { "last-event-id": id });
      expect(await after.presence()).toMatchObject({ userid, status: "1", online: true });
    }
  });

  test.concurrent("a token of one counts at another, for as long as it says", async () => {
    const userid = aUser("dan");
    const { token, expires_at: expiresAt } = await mint(behind, { userid, ttl_s: 60 }, KEY);
    expect(Math.abs(expiresAt - Date.now() / 1000 - 60)).toBeLessThan(5);
    expect((await pingAnswer(ahead, { userid, status: "0", token })).status).toBe(200);
  });

  test.concurrent("a campaign may be scheduled by the time of the database", async () => {
    for (const server of all()) {
      const at = new Date(Date.now() + 60_000).toISOString();
      for (const [scheduled, expectedMs] of [
        [at, Date.parse(at)],
        ["", Date.now()],
      ] as const) {
        const draft = { title: "t", body: "b", conditions: {}, scheduled_at: scheduled };
        const body = JSON.stringify(draft);
        const answer = fetch(`${server.url}/notifications`, { method: "POST", headers: KEY, body });
        const { result } = await objectOf(answer);
        const gotMs = Date.parse(String(Object(result).scheduled_at));
        expect(Math.abs(gotMs - expectedMs)).toBeLessThan(5000);
      }
    }
  });

  test.concurrent("the batches of a session are read in the order in which they were acknowledged", async () => {
    const body = JSON.stringify({ projectID: app.projectID, trackerVersion: "1.0.14" });
    const start = await fetch(`${ahead.url}/v1/ios/start`, { method: "POST", body });
    const session: TestSession = JSON.parse(await start.text());
    const sent = Array.from({ length: 9 }, (_, nth) =>
      aBatch({ messages: 1, bytes: 100, salt: `${nth}` }),
    );
    for (const [nth, batch] of sent.entries()) {
      expect(await statusOf(append(all()[nth % 3] ?? right, session, batch))).toBe(200);
      await Bun.sleep(APART_MS);
    }
    const answer = await fetch(`${right.url}/v1/sessions/${session.sessionID}/batches`, {
      headers: { ...KEY, accept: "application/octet-stream" },
    });
    expect(splitBatches(await answer.bytes()).map(Bun.hash)).toEqual(sent.map(Bun.hash));
  });

  test.concurrent("the difference is shown", async () => {
    for (const [server, said, seconds] of [
      [behind, "600 s behind PostgreSQL", -SHIFT_S],
      [right, undefined, 0],
      [ahead, "600 s ahead of PostgreSQL", SHIFT_S],
    ] as const) {
      const ready = await objectOf(fetch(`${server.url}/readyz`));
      expect(ready).toMatchObject({ status: "ok", postgres: "ok" });
      expect(ready["clock"]).toBe(said);
      const skew = await metric(server, "floodgate_clock_skew_seconds");
      expect(Math.abs(skew - seconds)).toBeLessThan(1);
    }
  });
});

async function online(server: ServerProcess, userid: string): Promise<boolean> {
  return Object(await snapshot(server, [userid], claim(userid)))[userid]?.online === true;
}
