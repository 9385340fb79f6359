import { describe, expect, test } from "bun:test";

import { sessionTime } from "../../src/log/session-time.ts";
import { SessionIds } from "../../src/sessions/session-id.ts";
import { Tokens } from "../../src/sessions/token.ts";
import { objectOf, refusalOf, sessionRow } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { aBatch } from "../support/batches.ts";
import { WEB_VECTORS } from "../support/tracker-requests.ts";

const PROMPT_PATHS = ["/v1/ios/append", "/v1/ios/i", "/v1/mobile/i"];
const LATE_PATHS = ["/v1/ios/late", "/v1/mobile/late"];
const WEB_PATH = "/v1/web/i";
const PATHS = [...PROMPT_PATHS, ...LATE_PATHS, WEB_PATH];
const DAY_MS = 86_400_000;
const BATCH = aBatch();
// A process of another time than the server's, so that its ids are nobody else's.
const strangers = new SessionIds(
  () => 65_535,
  () => Date.now() - DAY_MS,
);

const app = TestApp.forTests();

function tokenOf(
  sessionId: bigint,
  { expiresInMs = 60_000, secret = "test-secret", delay = 0 } = {},
): string {
  return new Tokens([secret]).sign({ sessionId, delay, expiresAt: Date.now() + expiresInMs });
}

/** Replaces the n-th of a token's parts. */
function forged(token: string, part: number, change: (text: string) => string): string {
  return token
    .split(".")
    .map((text, index) => (index === part ? change(text) : text))
    .join(".");
}

describe.each(PATHS)("at %s", (path) => {
  test.each<[string, Record<string, string>]>([
    ["no header", {}],
    ["an empty header", { authorization: "" }],
    ["another scheme", { authorization: "Basic dGVzdDp0ZXN0" }],
    ["the scheme in other letters", { authorization: "bearer a.b.c.d" }],
    ["the scheme without a token", { authorization: "Bearer" }],
    ["the token alone", { authorization: "a.b.c.d" }],
    ["another header", { token: "a.b.c.d" }],
  ])("%s is a missing token", async (_what, headers) => {
    expect(await refusalOf(app.post(path, BATCH, headers))).toEqual([401, "missing token"]);
  });

  test.each(["x", "a.b.c", "a.b.c.d.e", "....", "a.b.c.d "])(
    "a token of the form %p is refused",
    async (token) => {
      const trimmed = token.trim().split(".").length;
      const answer = app.post(path, BATCH, { authorization: `Bearer ${token}` });
      const text = trimmed === 4 ? "wrong token sign" : "wrong token format";
      expect(await refusalOf(answer)).toEqual([401, text]);
    },
  );

  test("a token that was changed anywhere, or signed by another, is refused", async () => {
    const session = await app.aSession();
    const id = BigInt(session.sessionID);
    const changes = [
      forged(session.token, 0, (text) => (BigInt(text.length) + id).toString(36)),
      forged(session.token, 1, () => "1"),
      forged(session.token, 1, () => "-0"),
      forged(session.token, 2, (text) => `${text}0`),
      forged(session.token, 2, () => ""),
      forged(session.token, 3, (text) => text.slice(1)),
      forged(session.token, 3, (text) => `${text.slice(0, -1)}0`),
      forged(session.token, 3, () => ""),
      session.token.toUpperCase(),
      tokenOf(id, { secret: "another-secret" }),
    ];
    for (const token of changes) {
      const answer = app.append({ ...session, token }, BATCH, path);
      expect(await refusalOf(answer)).toEqual([401, "wrong token sign"]);
    }
    expect(await app.batches(session)).toEqual([]);
  });

  test("a token with a clock difference is as good as one without", async () => {
    const session = await app.aSession();
    for (const delay of [-123, 4567]) {
      const token = tokenOf(BigInt(session.sessionID), { delay });
      expect((await app.append({ ...session, token }, BATCH, path)).status).toBe(200);
    }
  });
});

describe.each(PROMPT_PATHS)("at %s an expired token is refused", (path) => {
  test.each<[number, string]>([
    [-1, "token just expired"],
    [-29_000, "token just expired"],
    [-31_000, "token expired"],
    [-40 * DAY_MS, "token expired"],
  ])("%d ms after it", async (expiresInMs, text) => {
    const session = await app.aSession();
    const token = tokenOf(BigInt(session.sessionID), { expiresInMs });
    expect(await refusalOf(app.append({ ...session, token }, BATCH, path))).toEqual([401, text]);
    expect(await app.batches(session)).toEqual([]);
  });
});

describe.each(LATE_PATHS)("at %s an expired token", (path) => {
  test.each([-1, -31_000, -DAY_MS, -30 * DAY_MS + 60_000])(
    "passes %d ms after it",
    async (expiresInMs) => {
      const session = await app.aSession();
      const token = tokenOf(BigInt(session.sessionID), { expiresInMs });
      expect((await app.append({ ...session, token }, BATCH, path)).status).toBe(200);
      expect(await app.batches(session)).toEqual([BATCH]);
    },
  );

  test("is refused once it is older than 30 days", async () => {
    const session = await app.aSession();
    const token = tokenOf(BigInt(session.sessionID), { expiresInMs: -30 * DAY_MS - 60_000 });
    const answer = app.append({ ...session, token }, BATCH, path);
    expect(await refusalOf(answer)).toEqual([401, "token expired"]);
    expect(await app.batches(session)).toEqual([]);
  });
});

test("while a secret is replaced, the first signs and all verify", async () => {
  await using rotating = await TestApp.start({ env: { TOKEN_SECRET: "new-secret, old-secret" } });
  const session = await rotating.aSession();
  expect(new Tokens(["new-secret"]).verify(session.token, Date.now())?.kind).toBe("valid");
  const id = BigInt(session.sessionID);
  for (const secret of ["new-secret", "old-secret"]) {
    const token = tokenOf(id, { secret });
    const batch = aBatch({ salt: secret });
    expect((await rotating.append({ ...session, token }, batch)).status).toBe(200);
    expect((await objectOf(rotating.start({ token })))["sessionID"]).toBe(session.sessionID);
  }
  const old = { ...session, token: tokenOf(id, { secret: "test-secret" }) };
  expect(await refusalOf(rotating.append(old, BATCH))).toEqual([401, "wrong token sign"]);
  expect(await rotating.batches(session)).toHaveLength(2);
});

describe("a valid token of a session that has no row", () => {
  test.each(PATHS)("stores its data at %s and makes the row, of no project", async (path) => {
    const sessionId = strangers.next();
    const session = { token: tokenOf(sessionId), sessionID: String(sessionId) };
    const batch = path === WEB_PATH ? WEB_VECTORS.move : BATCH;
    expect((await app.append(session, batch, path)).status).toBe(200);
    expect(await app.batches(session)).toEqual([batch]);
    expect(await sessionRow(app, session)).toMatchObject({
      sessionID: session.sessionID,
      projectId: null,
      recorded: true,
      startedAt: new Date(sessionTime(sessionId)).toISOString(),
      userCountry: "UN",
    });
  });

  test("makes one row when its first batches come all at once", async () => {
    const sessionId = strangers.next();
    const session = { token: tokenOf(sessionId), sessionID: String(sessionId) };
    const batches = Array.from({ length: 20 }, (_, n) => aBatch({ messages: 1, salt: `${n}` }));
    const answers = await Promise.all(batches.map((batch) => app.append(session, batch)));
    expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200));
    expect(await app.batches(session)).toHaveLength(20);
    const rows = await app.sql`select id from sessions where id = ${session.sessionID}`;
    expect(rows).toHaveLength(1);
  });

  test("makes no row when its batch is refused", async () => {
    const sessionId = strangers.next();
    const session = { token: tokenOf(sessionId), sessionID: String(sessionId) };
    expect((await app.append(session, new Uint8Array())).status).toBe(400);
    expect((await app.append(session, new Uint8Array(2_000_000))).status).toBe(413);
    expect((await app.fetch(`/v1/sessions/${sessionId}`)).status).toBe(404);
  });

  test("keeps malformed data, too", async () => {
    const sessionId = strangers.next();
    const session = { token: tokenOf(sessionId), sessionID: String(sessionId) };
    const malformed = new TextEncoder().encode("not a batch");
    expect((await app.append(session, malformed)).status).toBe(200);
    expect(await app.batches(session, "?quarantined=true")).toEqual([malformed]);
  });
});
