import { beforeAll, describe, expect, test } from "bun:test";

import { Tokens } from "../../src/sessions/token.ts";
import { TestApp } from "../support/app.ts";
import { type TestProject, aProject } from "../support/projects.ts";
import { CHROME, aPage, startPage } from "../support/web-starts.ts";

const app = TestApp.forTests();
let web: TestProject;
let other: TestProject;
let unsampled: TestProject;
let half: TestProject;

beforeAll(async () => {
  web = await aProject(app, { platform: "web" });
  other = await aProject(app, { platform: "web" });
  unsampled = await aProject(app, { platform: "web", sampleRate: 0 });
  half = await aProject(app, { platform: "web", sampleRate: 50 });
});

/** A token that the server would have signed for that session. */
function tokenOf(sessionID: string, { expiresInMs = 60_000, secret = "test-secret" } = {}): string {
  const expiresAt = Date.now() + expiresInMs;
  return new Tokens([secret]).sign({ sessionId: BigInt(sessionID), delay: -7, expiresAt });
}

describe("a start with a token", () => {
  test("goes on with the session in a second tab, and `reset` begins another one", async () => {
    const { token, sessionID, ...first } = await aPage(app, web, { timestamp: Date.now() - 1000 });
    const tab = await aPage(app, web, { token, timestamp: Date.now() });
    expect(tab).toMatchObject({ token, sessionID, delay: first["delay"] });
    expect((await aPage(app, web, { token, reset: true })).sessionID).not.toBe(sessionID);
  });

  test.each<[string, (sessionID: string) => string]>([
    ["that expired just now", (id) => tokenOf(id, { expiresInMs: -1 })],
    ["that expired a day ago", (id) => tokenOf(id, { expiresInMs: -86_400_000 })],
    ["of another secret", (id) => tokenOf(id, { secret: "other" })],
    ["that is garbage", () => "a.b.c.d"],
    ["of a session without a row", (id) => tokenOf(String(BigInt(id) + 1n))],
  ])("%s begins a session of its own", async (_what, make) => {
    const { sessionID } = await aPage(app, web);
    expect((await aPage(app, web, { token: make(sessionID) })).sessionID).not.toBe(sessionID);
  });

  test("of another project begins a session of its own", async () => {
    const { token, sessionID } = await aPage(app, web);
    const foreign = await aPage(app, other, { token });
    expect(foreign.sessionID).not.toBe(sessionID);
  });

  test("is not drawn again for sampling", async () => {
    const sessionID = "4115717343915540482";
    await app.sql`insert into sessions (id, project_id, started_at)
      values (${sessionID}, ${unsampled.id}, now()) on conflict do nothing`;
    const resumed = await aPage(app, unsampled, { token: tokenOf(sessionID) });
    expect(resumed).toMatchObject({ sessionID, delay: -7 });
  });
});

test("sampling decides once for a user, also when the start is repeated without an id", async () => {
  const statuses = new Set<number>();
  for (let nth = 0; nth < 40; nth++) {
    const fields = nth < 20 ? { userUUID: crypto.randomUUID() } : {};
    const headers = { "user-agent": `${CHROME} Page/${nth}` };
    const { status } = await startPage(app, half, fields, headers);
    for (let again = 0; again < 3; again++)
      expect((await startPage(app, half, fields, headers)).status).toBe(status);
    statuses.add(status);
  }
  expect(statuses).toEqual(new Set([200, 403]));
});
