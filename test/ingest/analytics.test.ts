import { gzipSync } from "node:zlib";
import { beforeAll, describe, expect, test } from "bun:test";
import { Type } from "typebox";
import { Value } from "typebox/value";

import { Tokens } from "../../src/sessions/token.ts";
import { objectOf, refusalOf, sessionRow } from "../support/answers.ts";
import { TestApp, type TestSession } from "../support/app.ts";
import { eventually } from "../support/eventually.ts";
import { type TestProject, aProject } from "../support/projects.ts";
import { kindsOf } from "../support/read-batches.ts";

const PATH = "/v1/sdk/i";
const AT = 1_760_000_000_000;
const EVENTS = {
  events: [
    { name: "signed up", payload: { plan: "pro" }, timestamp: AT },
    { name: "bought", payload: {}, timestamp: AT + 1500 },
  ],
  user_actions: [{ type: "identity", user_id: "ada", payload: {}, timestamp: AT + 20 }],
};
const Batches = Type.Object({ batches: Type.Array(Type.Record(Type.String(), Type.Unknown())) });

const app = TestApp.forTests();
let web: TestProject;

beforeAll(async () => {
  web = await aProject(app, { platform: "web" });
});

/** Starts a session of the analytics SDK. */
async function anAnalyticsSession(): Promise<TestSession> {
  const body = { projectKey: web.projectKey, sdk_version: "1.0.0" };
  const { token } = await objectOf(app.post("/v1/sdk/start", JSON.stringify(body)));
  const claims = new Tokens(["test-secret"]).verify(String(token), Date.now());
  if (claims === undefined) throw new Error("the token cannot be read");
  return { token: String(token), sessionID: String(claims.sessionId) };
}

async function send(session: TestSession, body: string | Uint8Array, headers = {}) {
  return await app.append(session, Buffer.from(body), PATH, headers);
}

async function jsonOf({ sessionID }: TestSession): Promise<unknown[]> {
  const answer = await app.fetch(`/v1/sessions/${sessionID}/batches`);
  return Value.Parse(Batches, await answer.json()).batches.map(({ json }) => json);
}

describe("events of product analytics", () => {
  test("are stored once as they came, and read back as JSON or bytes", async () => {
    const session = await anAnalyticsSession();
    const whole = JSON.stringify({ data: EVENTS });
    const bare = ` ${JSON.stringify(EVENTS)}\n`;
    expect((await send(session, whole)).status).toBe(200);
    const zipped = await send(session, gzipSync(bare), { "content-encoding": "gzip" });
    expect(zipped.status).toBe(200);
    expect((await send(session, whole)).status).toBe(200);
    expect(await jsonOf(session)).toEqual([{ data: EVENTS }, EVENTS]);
    expect(await app.batches(session)).toEqual([Buffer.from(whole), Buffer.from(bare)]);
    expect(await kindsOf(app, session)).toEqual(["sdk", "sdk"]);
  });

  test("are taken with the token of a tracker's session, too", async () => {
    const session = await app.aSession();
    expect((await send(session, JSON.stringify(EVENTS))).status).toBe(200);
    expect(await jsonOf(session)).toEqual([EVENTS]);
  });

  test("say who the user is, how many they are, and how long it took", async () => {
    const session = await anAnalyticsSession();
    await send(session, JSON.stringify({ data: EVENTS }));
    await eventually("the facts are written", async () => {
      return (await sessionRow(app, session))["events"] === 3;
    });
    expect(await sessionRow(app, session)).toMatchObject({ userID: "ada", durationMs: 1500 });
  });

  test.each<[string, string | Uint8Array]>([
    ["no JSON", "{"],
    ["no UTF-8", Uint8Array.of(34, 255, 34)],
    ["nested deeper than readers of JSON can read", "[".repeat(101) + "]".repeat(101)],
  ])("that are %s are quarantined", async (_, body) => {
    const session = await anAnalyticsSession();
    expect((await send(session, body)).status).toBe(200);
    expect(await kindsOf(app, session)).toEqual([]);
    expect(await kindsOf(app, session, "?quarantined=true")).toEqual(["sdk"]);
  });

  test.each([
    "null",
    "[]",
    "1",
    '"x"',
    `"\\"${"[".repeat(200)}"`,
    `${"[".repeat(100)}${"]".repeat(100)}`,
    '{"data":null}',
    '{"events":{},"user_actions":[1,null]}',
  ])("of another shape, like %s, are stored as they came", async (body) => {
    const session = await anAnalyticsSession();
    expect((await send(session, body)).status).toBe(200);
    expect(await jsonOf(session)).toEqual([JSON.parse(body)]);
  });

  test("are refused without a body, over the limit, and with a broken coding", async () => {
    const session = await anAnalyticsSession();
    expect(await refusalOf(send(session, ""))).toEqual([400, "the batch is empty"]);
    expect((await send(session, " ".repeat(1_000_000 + 64 * 1024 + 1))).status).toBe(413);
    expect((await send(session, "{", { "content-encoding": "gzip" })).status).toBe(400);
  });

  test("are refused with a token that has expired, also just now", async () => {
    const tokens = new Tokens(["test-secret"]);
    const { sessionID } = await anAnalyticsSession();
    for (const [expiredMs, text] of [
      [1000, "token just expired"],
      [60_000, "token expired"],
    ] as const) {
      const expiresAt = Date.now() - expiredMs;
      const token = tokens.sign({ sessionId: BigInt(sessionID), delay: 0, expiresAt });
      const answer = await send({ token, sessionID }, JSON.stringify(EVENTS));
      expect(await refusalOf(answer)).toEqual([401, text]);
    }
    expect(await jsonOf({ sessionID, token: "" })).toEqual([]);
  });
});
