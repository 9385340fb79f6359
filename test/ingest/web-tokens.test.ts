import { describe, expect, test } from "bun:test";

import { Tokens } from "../../src/sessions/token.ts";
import { refusalOf } from "../support/answers.ts";
import { TestApp, type TestSession } from "../support/app.ts";
import { FaultyObjects, fails } from "../support/faulty-objects.ts";
import { ASSETS, PLAYER, SPLIT, WEB_VECTORS } from "../support/tracker-requests.ts";

const PATH = "/v1/web/i";
const VISUAL = { datatype: "visual" };
const GZIP = { "content-encoding": "gzip" };
const BYTES_MAX = 1_000_000 + 64 * 1024;

const app = TestApp.forTests();

describe("a token that has just expired", () => {
  const EXPIRED = [401, "token just expired"] as const;

  test("has its batch stored, and is answered 401", async () => {
    const session = expired(await app.aSession());
    const path = `${PATH}?split=${SPLIT}`;
    const answer = await app.append(session, WEB_VECTORS.visual, path, VISUAL);
    expect(answer.headers.get("access-control-allow-origin")).toBe("*");
    expect(await refusalOf(answer)).toEqual([...EXPIRED]);
    expect(await app.batches(session)).toEqual([PLAYER, ASSETS]);
  });

  test("is answered 401 whatever else is wrong", async () => {
    const session = expired(await app.aSession());
    const tooLarge = new Uint8Array(BYTES_MAX + 1);
    expect(await refusalOf(app.append(session, tooLarge, PATH))).toEqual([...EXPIRED]);
    const noGzip = app.append(session, WEB_VECTORS.move, PATH, GZIP);
    expect(await refusalOf(noGzip)).toEqual([...EXPIRED]);
    const noSplit = app.append(session, WEB_VECTORS.visual, PATH, VISUAL);
    expect(await refusalOf(noSplit)).toEqual([...EXPIRED]);
    expect(await app.batches(session)).toEqual([]);
  });

  test("is answered 401 where the store fails, and 503 otherwise", async () => {
    const objects = new FaultyObjects();
    await using own = await TestApp.start({ wrapObjects: objects.wrap, commitDeadlineMs: 200 });
    const session = await own.aSession();
    objects.otherwise = fails;
    const late = own.append(expired(session), WEB_VECTORS.move, PATH);
    expect(await refusalOf(late)).toEqual([...EXPIRED]);
    const answer = await own.append(session, WEB_VECTORS.move, PATH);
    expect([answer.status, answer.headers.get("access-control-allow-origin")]).toEqual([503, "*"]);
  });

  test("31 seconds ago has nothing stored", async () => {
    const session = expired(await app.aSession(), 31_000);
    const answer = app.append(session, WEB_VECTORS.move, PATH);
    expect(await refusalOf(answer)).toEqual([401, "token expired"]);
    expect(await app.batches(session)).toEqual([]);
  });
});

function expired({ sessionID }: TestSession, agoMs = 1000): TestSession {
  const claims = { sessionId: BigInt(sessionID), delay: 0, expiresAt: Date.now() - agoMs };
  return { sessionID, token: new Tokens(["test-secret"]).sign(claims) };
}
