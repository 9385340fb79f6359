import { beforeAll, describe, expect, test } from "bun:test";
import { pino } from "pino";

import { Tokens } from "../../src/sessions/token.ts";
import { startServer } from "../../src/processes/server.ts";
import { objectOf, refusalOf, sessionRow } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { type TestProject, aProject } from "../support/projects.ts";

const PATHS = ["/v1/ios/start", "/v1/mobile/start"];
const TOKENS = new Tokens(["test-secret"]);
const CRAWLER = { "user-agent": "Mozilla/5.0 (compatible; Googlebot/2.1)" };

const app = TestApp.forTests();
let other: TestProject;
let unsampled: TestProject;
let half: TestProject;

beforeAll(async () => {
  other = await aProject(app, { platform: "android" });
  unsampled = await aProject(app, { sampleRate: 0 });
  half = await aProject(app, { sampleRate: 50 });
});

async function sessionCount(): Promise<number> {
  const [row] = await app.sql<[{ count: number }]>`select count(*)::integer as count from sessions`;
  return row.count;
}

/** A token that the server would have signed for that session. */
function tokenOf(sessionID: string, { expiresInMs = 60_000, secret = "test-secret" } = {}): string {
  return new Tokens([secret]).sign({
    sessionId: BigInt(sessionID),
    delay: 0,
    expiresAt: Date.now() + expiresInMs,
  });
}

describe.each(PATHS)("a start at %s with a token", (path) => {
  test("goes on with the session and its expiry, and makes no row", async () => {
    const session = await app.aSession({ userID: "first" });
    const token = tokenOf(session.sessionID, { expiresInMs: 12_345 });
    const before = await sessionCount();
    const resumed = await objectOf(app.start({ token, userID: "second", doNotRecord: true }, path));
    expect(resumed["sessionID"]).toBe(session.sessionID);
    const { expiresAt } = TOKENS.verify(token, 0) ?? {};
    expect(TOKENS.verify(String(resumed["token"]), 0)?.expiresAt).toBe(Number(expiresAt));
    expect(await sessionCount()).toBe(before);
    expect(await sessionRow(app, session)).toMatchObject({ userID: "first", recorded: true });
  });

  test("of another project begins a session of its own", async () => {
    const { token, sessionID } = await app.aSession();
    const started = await objectOf(app.start({ token, projectID: other.projectID }, path));
    expect(started["sessionID"]).not.toBe(sessionID);
    expect(started["projectID"]).toBe(String(other.id));
  });

  test.each<[string, (sessionID: string) => string]>([
    ["that expired just now", (id) => tokenOf(id, { expiresInMs: -1 })],
    ["that expired a day ago", (id) => tokenOf(id, { expiresInMs: -86_400_000 })],
    ["of another secret", (id) => tokenOf(id, { secret: "other" })],
    ["that is garbage", () => "a.b.c.d"],
    ["that is empty", () => ""],
    ["that is far too long", () => "x".repeat(1000)],
    ["of a session without a row", (id) => tokenOf(String(BigInt(id) + 1n))],
  ])("%s begins a session of its own", async (_what, make) => {
    const { sessionID } = await app.aSession();
    const before = await sessionCount();
    const started = await objectOf(app.start({ token: make(sessionID) }, path));
    expect(started["sessionID"]).not.toBe(sessionID);
    expect(await sessionCount()).toBe(before + 1);
  });

  test("is neither drawn again for sampling nor judged by its user agent", async () => {
    const sessionID = "4115717343915540481";
    await app.sql`insert into sessions (id, project_id, started_at)
      values (${sessionID}, ${unsampled.id}, now()) on conflict do nothing`;
    const fields = { projectID: unsampled.projectID, token: tokenOf(sessionID) };
    expect((await objectOf(app.start(fields, path, CRAWLER)))["sessionID"]).toBe(sessionID);
    expect((await refusalOf(app.start({ ...fields, token: null }, path)))[0]).toBe(403);
  });

  test("is still subject to the project's checks", async () => {
    const { token } = await app.aSession();
    const unknown = app.start({ token, projectKey: "no-such-key" }, path);
    expect(await refusalOf(unknown)).toEqual([404, "project not found"]);
    const unversioned = await refusalOf(app.start({ token, trackerVersion: null }, path));
    expect(unversioned[0]).toBe(path === "/v1/ios/start" ? 400 : 426);
  });

  test("goes on at another server of the same database", async () => {
    const session = await app.aSession();
    const server = await startServer(app.config, app.databaseUrl, {
      log: pino({ level: "silent" }),
    });
    try {
      const body = JSON.stringify({
        projectID: app.projectID,
        trackerVersion: "1.0.14",
        token: session.token,
      });
      const answer = await fetch(new URL(path, server.url), { method: "POST", body });
      expect((await objectOf(answer))["sessionID"]).toBe(session.sessionID);
    } finally {
      await server[Symbol.asyncDispose]();
    }
  });
});

describe("sampling at 50 percent", () => {
  test("decides once for a user and lets about half of the users in", async () => {
    const statuses = await Promise.all(
      Array.from({ length: 120 }, async () => {
        const fields = { projectID: half.projectID, userUUID: crypto.randomUUID() };
        const first = await app.start(fields, "/v1/mobile/start");
        const again = await app.start(fields, "/v1/mobile/start");
        expect(again.status).toBe(first.status);
        if (first.status === 403)
          expect(await refusalOf(first)).toEqual([403, "capture rate miss, rate: 50"]);
        return first.status;
      }),
    );
    const sampled = statuses.filter((status) => status === 200).length;
    // Outside of this by chance once in 10^9 runs.
    expect(sampled).toBeGreaterThan(25);
    expect(sampled).toBeLessThan(95);
    expect(new Set(statuses)).toEqual(new Set([200, 403]));
  });

  test("decides once for an address and agent when there is no user", async () => {
    const outcomes = new Map<string, number>();
    for (let n = 0; n < 40; n++) {
      const headers = { "user-agent": `App/${n % 20}` };
      const { status } = await app.start({ projectID: half.projectID }, "/v1/ios/start", headers);
      expect(outcomes.get(headers["user-agent"]) ?? status).toBe(status);
      outcomes.set(headers["user-agent"], status);
    }
    expect(new Set(outcomes.values())).toEqual(new Set([200, 403]));
  });

  test("is the same for one user in every spelling of the UUID", async () => {
    const spelled = Array.from({ length: 12 }, () => crypto.randomUUID());
    for (const userUUID of spelled) {
      const forms = [userUUID, userUUID.toUpperCase(), `{${userUUID}}`, `urn:uuid:${userUUID}`];
      const answers = forms.map((form) =>
        app.start({ projectID: half.projectID, userUUID: form }, "/v1/mobile/start"),
      );
      const statuses = (await Promise.all(answers)).map(({ status }) => status);
      expect(new Set(statuses).size).toBe(1);
    }
  });
});
