import { describe, expect, test } from "bun:test";
import { Type } from "typebox";
import { Value } from "typebox/value";

import { readFooter } from "../../src/log/footer.ts";
import { objectOf, refusalOf, sessionRow } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { aProject } from "../support/projects.ts";

const Page = Type.Object(
  {
    sessions: Type.Array(Type.Object({ sessionID: Type.String(), startedAt: Type.String() })),
    nextCursor: Type.Union([Type.String(), Type.Null()]),
  },
  { additionalProperties: false },
);
type Page = Type.Static<typeof Page>;

const NOON = Date.UTC(2026, 0, 15, 12);
const USER = "5f0c0f0e-3a51-4a57-9d4b-6f4d6d1c1b1a";

const app = TestApp.forTests();

async function page(query: string): Promise<Page> {
  return Value.Parse(Page, await objectOf(app.fetch(`/v1/sessions?${query}`)));
}

/** The ids of all pages, each asked for by the cursor of the one before. */
async function allPages(query: string, between?: () => Promise<void>): Promise<string[]> {
  const ids: string[] = [];
  for (let cursor = ""; ;) {
    const { sessions, nextCursor } = await page(query + cursor);
    ids.push(...sessions.map(({ sessionID }) => sessionID));
    if (nextCursor === null) return ids;
    expect(sessions.length).toBeGreaterThan(0);
    await between?.();
    cursor = `&cursor=${nextCursor}`;
  }
}

/** Sessions of a project of their own, one a minute from noon on, newest first. */
async function sessionsOf(count: number, atMs: (index: number) => number) {
  const { id } = await aProject(app);
  const ids = Array.from({ length: count }, (_, index) =>
    String(3_500_000_000_000_000_000n + BigInt(id) * 1_000_000n + BigInt(index)),
  );
  for (const [index, sessionID] of ids.entries())
    await app.sql`insert into sessions (id, project_id, started_at, user_uuid, user_id, user_device)
      values (${sessionID}, ${id}, ${new Date(atMs(index)).toISOString()}, ${index === 1 ? USER : null},
        ${`user ${index % 2}`}, ${index < 3 ? "iPhone 14 Pro" : "shiba & co"})`;
  return { id, ids: ids.toReversed() };
}

function base64url(text: string): string {
  return Buffer.from(text).toString("base64url");
}

describe.each(["files", "s3"] as const)("with objects in %s", (store) => {
  test("a session is in the index and in a stored segment once its start is answered", async () => {
    await using own = await TestApp.start({ store });
    const { sessionID } = await own.aSession({ deviceMemory: 4_000_000 });
    expect(await sessionRow(own, { sessionID })).toMatchObject({
      sessionID,
      projectId: own.project.id,
      deviceMemory: 4_000_000,
    });
    const stored: bigint[] = [];
    for await (const { key, bytes } of own.objects.list("segments/")) {
      const { entries } = readFooter(await own.objects.read(key, 0, bytes));
      for (const entry of entries) if (entry.kind === "session") stored.push(entry.sessionId);
    }
    expect(stored).toEqual([BigInt(sessionID)]);
  });
});

describe("the list of sessions", () => {
  test("has the newest first, and only those of the project", async () => {
    const { id, ids } = await sessionsOf(5, (index) => NOON + index * 60_000);
    const other = await sessionsOf(1, () => NOON);
    expect(await page(`projectId=${id}`)).toMatchObject({
      sessions: ids.map((sessionID) => ({ sessionID })),
      nextCursor: null,
    });
    expect((await page(`projectId=${other.id}`)).sessions).toHaveLength(1);
    expect(await page("projectId=2000000000")).toEqual({ sessions: [], nextCursor: null });
  });

  test("comes in pages that together have every session once, also of equal times", async () => {
    const { id, ids } = await sessionsOf(11, (index) => NOON + Math.floor(index / 4));
    for (const limit of [1, 2, 3, 4, 10, 11, 12])
      expect(await allPages(`projectId=${id}&limit=${limit}`)).toEqual(ids);
  });

  test("goes on where it was while newer sessions start", async () => {
    const { id, ids } = await sessionsOf(6, (index) => NOON + index);
    const start = async () => {
      await app.sql`insert into sessions (id, project_id, started_at)
        select max(id) + 1, ${id}, now() from sessions`;
    };
    expect(await allPages(`projectId=${id}&limit=2`, start)).toEqual(ids);
    expect((await page(`projectId=${id}`)).sessions).toHaveLength(8);
  });

  test("gives real sessions by real cursors", async () => {
    const { projectID, id } = await aProject(app);
    const started: string[] = [];
    for (let n = 0; n < 5; n++) started.push((await app.aSession({ projectID })).sessionID);
    const listed = await allPages(`projectId=${id}&limit=2`);
    expect(listed.toSorted()).toEqual(started.toSorted());
  });

  test("is bounded by time: from inclusive, to exclusive", async () => {
    const { id, ids } = await sessionsOf(5, (index) => NOON + index * 60_000);
    const [fifth, fourth, third, second, first] = ids;
    const query = async (filter: string) =>
      (await page(`projectId=${id}&${filter}`)).sessions.map(({ sessionID }) => sessionID);
    expect(await query(`from=${NOON + 120_000}`)).toEqual([fifth, fourth, third].map(String));
    expect(await query(`to=${NOON + 120_000}`)).toEqual([second, first].map(String));
    expect(await query("from=2026-01-15T12:01:00Z&to=2026-01-15T13:02:00%2B01:00")).toEqual([
      String(second),
    ]);
    expect(await query("from=2026-01-16")).toEqual([]);
    expect(await query("from=0001-01-01&to=9999-12-31T23:59:59.999Z")).toEqual(ids);
  });

  test("is filtered by user and device, alone and together", async () => {
    const { id, ids } = await sessionsOf(5, (index) => NOON + index);
    const [fifth, fourth, third, second, first] = ids.map(String);
    const query = async (filter: Record<string, string>) => {
      const search = new URLSearchParams({ projectId: String(id), ...filter });
      return (await page(search.toString())).sessions.map(({ sessionID }) => sessionID);
    };
    expect(await query({ userUUID: USER.toUpperCase() })).toEqual([String(second)]);
    expect(await query({ userID: "user 0" })).toEqual([fifth, third, first].map(String));
    expect(await query({ device: "shiba & co" })).toEqual([fifth, fourth].map(String));
    expect(await query({ device: "iPhone 14 Pro", userID: "user 1" })).toEqual([String(second)]);
    expect(await query({ device: "' or true --" })).toEqual([]);
  });

  const NO_TIME = "is neither an ISO 8601 time nor epoch milliseconds";
  const CURSOR = "cursor is not one that this route gave out";
  const METADATA = "metadata must be at most 16 keys and texts";
  const LIMIT = "limit must be a whole number from 1 to 1000";

  test.each<[string, string]>([
    ["", "projectId must be a whole number from 0 to 2147483647"],
    ["projectId=", "projectId must be a whole number from 0 to 2147483647"],
    ["projectId=x", "projectId must be a whole number from 0 to 2147483647"],
    ["projectId=-1", "projectId must be a whole number from 0 to 2147483647"],
    ["projectId=2147483648", "projectId must be a whole number from 0 to 2147483647"],
    ["projectId=1&limit=0", LIMIT],
    ["projectId=1&limit=1001", LIMIT],
    ["projectId=1&limit=1.5", LIMIT],
    ["projectId=1&limit=many", LIMIT],
    ["projectId=1&from=yesterday", `from ${NO_TIME}`],
    ["projectId=1&from=-5", `from ${NO_TIME}`],
    ["projectId=1&from=-000100-01-01T00:00:00Z", `from ${NO_TIME}`],
    ["projectId=1&from=0000-01-01", `from ${NO_TIME}`],
    ["projectId=1&to=2026-13-01", `to ${NO_TIME}`],
    ["projectId=1&to=99999999999999999", `to ${NO_TIME}`],
    ["projectId=1&to=%2B010000-01-01T00:00:00Z", `to ${NO_TIME}`],
    ["projectId=1&userUUID=me", "userUUID must be a UUID"],
    ["projectId=1&userID=%00", "userID must be text of 1 to 255 characters"],
    ["projectId=1&device=a%00b", "device must be text of 1 to 255 characters"],
    [`projectId=1&userID=${"x".repeat(256)}`, "userID must be text of 1 to 255 characters"],
    ["projectId=1&cursor=x", CURSOR],
    ["projectId=1&userld=x", 'there is no parameter "userld"'],
    ["projectId=1&userID[a]=x", 'there is no parameter "userID[a]"'],
    ["projectId=1&metadata=x", 'there is no parameter "metadata"'],
    ["projectId=1&metadata[]=x", METADATA],
    ["projectId=1&metadata[a]=%00", METADATA],
    [`projectId=1&metadata[${"x".repeat(256)}]=1`, METADATA],
    [`projectId=1&${Array.from({ length: 17 }, (_, n) => `metadata[${n}]=1`).join("&")}`, METADATA],
    ["projectId=1&hasErrors=1", "hasErrors must be true or false"],
    ["projectId=1&minDurationMs=1s", "minDurationMs must be a whole number from 0 to 2147483647"],
    ["projectId=1&page=", "page must be text of 1 to 1000 characters"],
    [`projectId=1&cursor=${base64url("1.2.3")}`, CURSOR],
    [`projectId=1&cursor=${base64url("1760000000000.9223372036854775808")}`, CURSOR],
    [`projectId=1&cursor=${base64url("99999999999999.1")}`, CURSOR],
    [`projectId=1&cursor=${base64url("1.1' or '1")}`, CURSOR],
  ])("refuses %p in words that help", async (query, text) => {
    expect(await refusalOf(app.fetch(`/v1/sessions?${query}`))).toEqual([400, text]);
  });
});

describe("one session", () => {
  test.each(["1", "0", "9223372036854775807", "9223372036854775808", "99999999999999999999"])(
    "with the id %s is not found",
    async (sessionID) => {
      const answer = app.fetch(`/v1/sessions/${sessionID}`);
      expect(await refusalOf(answer)).toEqual([404, "session not found"]);
    },
  );

  test.each(["x", "-1", "1.0", "1e3", "0x1", "%00", "%E0%A4%A", "1%20", "..%2F1"])(
    "is not found by %s, which is no id",
    async (text) => {
      const answer = app.fetch(`/v1/sessions/${text}`);
      expect(await refusalOf(answer)).toEqual([404, "session not found"]);
    },
  );
});
