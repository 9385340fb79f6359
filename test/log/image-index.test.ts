import { describe, expect, test } from "bun:test";

import { claimSegments, restoreRows } from "../../src/log/recovery/restore.ts";
import { readStored } from "../../src/log/stored-segment.ts";
import { TestApp } from "../support/app.ts";
import { aBatch } from "../support/batches.ts";
import { aFile, from, imageList, sha256Of, textOf, upload } from "../support/images.ts";
import { putBefore } from "../support/images-before.ts";
import { emptyTables, ingestTables, reindex, untilIndexed } from "../support/ingest-tables.ts";
import { putSegment } from "../support/made-segment.ts";
import { NO_GRACE, orphansOf } from "../support/orphans.ts";
import { Random } from "../support/random.ts";
import { SessionIds } from "../../src/sessions/session-id.ts";
import { Tokens } from "../../src/sessions/token.ts";

// A worker id that no server of these tests uses.
const strangers = new SessionIds(() => 65_001);
const PROXIED = { env: { TRUSTED_PROXIES: "127.0.0.0/8" } };

/** Returns the rows of all image tables. */
async function imageTables({ sql }: TestApp) {
  const { contents, uses, images } = await ingestTables(sql);
  return { contents, uses, images };
}

/**
 * Sends equal, different and known bytes under the same names from three sessions in two networks.
 */
async function sendAll(app: TestApp) {
  const sessions = [await app.aSession(), await app.aSession(), await app.aSession()] as const;
  const large = "x".repeat(200_000);
  const forms = [
    [0, 1, [aFile("a", "1"), aFile("b", "1"), aFile("a", "2")]],
    [1, 2, [aFile("a", "2"), aFile("b", "2")]],
    [2, 2, [aFile("a", "2"), aFile("c", large)]],
    [0, 1, [aFile("c", large), aFile("a", "1")]],
    [1, 2, [aFile("b", "1")]],
  ] as const;
  for (const [index, network, files] of forms) {
    const answer = await upload(app, sessions[index], [...files], { headers: from(network) });
    expect(answer.status).toBe(200);
  }
  // The next segment carries the records of images that are otherwise only in the database.
  await app.append(sessions[0], aBatch());
  // No request waits for segments that have only chunks of known images.
  await untilIndexed(app);
  return sessions;
}

describe("contents and uses", () => {
  test("are rebuilt from the store as they were, also of sessions that sent nothing new", async () => {
    await using app = await TestApp.start(PROXIED);
    const sessions = await sendAll(app);
    const before = await imageTables(app);
    const listed = await Promise.all(sessions.map((one) => imageList(app, one)));
    await emptyTables(app.sql);
    await reindex(app);
    expect(await imageTables(app)).toEqual(before);
    expect(await Promise.all(sessions.map((one) => imageList(app, one)))).toEqual(listed);
    expect(await textOf(app, sessions[0], "a")).toBe("1");
    expect(await textOf(app, sessions[1], "b")).toBe("1");
    expect(before.contents.filter(({ row }) => row.shared).map(({ row }) => row.name)).toEqual([
      "a",
      "b",
      "c",
    ]);
  });

  test("are the same in whatever order the segments come", async () => {
    await using app = await TestApp.start(PROXIED);
    await sendAll(app);
    const before = await imageTables(app);
    const objects = await Array.fromAsync(app.objects.list("segments/"));
    for (let seed = 1; seed <= 5; seed++) {
      const random = new Random(seed);
      const shuffled = objects
        .map((object) => ({ object, key: random.next() }))
        .toSorted((a, b) => a.key - b.key);
      await emptyTables(app.sql);
      for (const { object } of shuffled)
        await app.sql.begin(async (transaction) => {
          const claimed = await claimSegments(transaction, [await readStored(app.objects, object)]);
          await restoreRows(transaction, claimed, { newerGiveWay: true });
        });
      expect(await imageTables(app)).toEqual(before);
    }
  });

  test("come back beside a server that goes on meanwhile", async () => {
    await using app = await TestApp.start(PROXIED);
    const sessions = await sendAll(app);
    const listed = async () => {
      const all = await Promise.all(sessions.map((one) => imageList(app, one)));
      return all.map((list) => list.map(({ name, sha256 }) => [name, sha256]));
    };
    const before = await listed();
    await emptyTables(app.sql);
    const sends = sessions.flatMap((session, nth) =>
      ["a", "b", "c", "d"].map(async (name) => {
        const parts = [aFile(name, "1"), aFile(`${name}${nth}`)];
        return (await upload(app, session, parts, { path: "/v1/mobile/images", fields: [] }))
          .status;
      }),
    );
    const [, ...statuses] = await Promise.all([reindex(app), ...sends]);
    expect(new Set(statuses)).toEqual(new Set([200]));
    await reindex(app);
    const after = await listed();
    for (const [nth, list] of before.entries()) {
      expect(after[nth]).toEqual(expect.arrayContaining(list));
      for (const name of ["a", "b", "c", "d"]) {
        expect(after[nth]).toContainEqual([name, sha256Of("1")]);
        expect(after[nth]).toContainEqual([`${name}${nth}`, sha256Of(`bytes of ${name}${nth}`)]);
      }
    }
  });
});

test("records of the version before and of this one are restored beside one another", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  await putBefore(app, session, { name: "a", content: "before", ageMs: 60_000 });
  await putBefore(app, session, { name: "only before", content: "x", ageMs: 60_000 });
  await upload(app, session, [aFile("a", "after")]);
  await emptyTables(app.sql);
  await reindex(app);
  expect((await imageList(app, session)).map(({ name, sha256 }) => [name, sha256])).toEqual([
    ["a", null],
    ["a", sha256Of("after")],
    ["only before", null],
  ]);
  const first = await app.fetch(`/v1/images/${app.project.id}/a`);
  expect(await first.text()).toBe("before");
  expect(await textOf(app, session, "a")).toBe("after");
});

describe("the segment of an image that died before its row", () => {
  test("is adopted with a use that nobody else has, and deleted when the session sent it again", async () => {
    await using app = await TestApp.start();
    const [first, second] = [await app.aSession(), await app.aSession()];
    await upload(app, first, [aFile("shared", "bytes")]);
    const body = Buffer.from("bytes");
    const orphan = async (sessionID: string) => {
      const chunk = { kind: "chunk", sessionID, projectId: app.project.id, body } as const;
      const [content] = (await ingestTables(app.sql)).contents;
      const { kind, content_type, bytes, crc32, name } = content?.["row"] ?? {};
      const row = {
        project_id: app.project.id,
        name,
        session_id: sessionID,
        kind,
        content_type,
        bytes,
        crc32,
        sha256: sha256Of("bytes"),
        network: 1,
        uses: 1,
        stored_at: new Date(0).toISOString(),
        chunk_segments: [null],
        chunk_offsets: [42],
        chunk_lengths: [body.length],
      };
      return await putSegment(app.objects, [
        chunk,
        { kind: "image", sessionID, projectId: app.project.id, body: row },
      ]);
    };
    await orphan(second.sessionID);
    const known = await orphan(first.sessionID);
    const orphans = orphansOf(app, { ...NO_GRACE, chunksMs: -1000 });
    expect(await orphans.look()).toMatchObject({ adopted: 1, deleted: 1, damaged: 0 });
    expect(await textOf(app, second, "shared")).toBe("bytes");
    expect(await textOf(app, first, "shared")).toBe("bytes");
    const keys = (await Array.fromAsync(app.objects.list("segments/"))).map(({ key }) => key);
    expect(keys).not.toContain(known.key);
    const [content] = (await ingestTables(app.sql)).contents;
    expect(content?.["row"].uses).toBe(2);
  });
});

test("chunks of a large file that was stored already are left, and no other segment goes with them", async () => {
  await using app = await TestApp.start({ env: { COMMIT_BYTES: String(64 * 1024) } });
  const [first, second] = [await app.aSession(), await app.aSession()];
  const large = new Random(8).bytes(400_000);
  await upload(app, first, [aFile("large", large)]);
  const stored = (await Array.fromAsync(app.objects.list("segments/"))).map(({ key }) => key);
  await upload(app, second, [aFile("large", large), aFile("small", "x")]);
  await emptyTables(app.sql);
  // The database was lost completely, and chunks get no grace period.
  const orphans = orphansOf(app, { ...NO_GRACE, chunksMs: -1000 });
  for (let pass = 0; pass < 3; pass++) await orphans.look();
  const left = (await Array.fromAsync(app.objects.list("segments/"))).map(({ key }) => key);
  expect(left).toEqual(expect.arrayContaining(stored));
  const query = `?session=${second.sessionID}`;
  for (const { name } of await imageList(app, second)) {
    const answer = await app.fetch(`/v1/images/${app.project.id}/${String(name)}${query}`);
    expect(answer.status).toBe(200);
  }
  expect((await imageList(app, first)).map(({ sha256 }) => sha256)).toEqual([sha256Of(large)]);
});

test("a content of no project stays as long as a session of no project has it", async () => {
  await using app = await TestApp.start();
  const tokens = new Tokens(["test-secret"]);
  const send = async (sessionId: bigint) => {
    const token = tokens.sign({ sessionId, delay: 0, expiresAt: Date.now() + 60_000 });
    const options = { path: "/v1/mobile/images", fields: [] };
    expect((await upload(app, { token }, [aFile("unassigned", "x")], options)).status).toBe(200);
  };
  const [known, unknown] = [strangers.next(), strangers.next()];
  await send(known);
  await send(unknown);
  const started = { id: String(known), project_id: app.project.id, recorded: true };
  const row = {
    ...started,
    started_at: new Date().toISOString(),
    user_country: "UN",
    user_state: "",
    user_city: "",
  };
  await putSegment(app.objects, [{ kind: "session", sessionID: String(known), body: row }]);
  await reindex(app);
  const places = async () =>
    (await ingestTables(app.sql)).contents.map(({ row: { project_id: project } }) => project);
  expect(await places()).toEqual([0, app.project.id]);
  for (const [id, project] of [
    [known, app.project.id],
    [unknown, 0],
  ] as const) {
    const answer = await app.fetch(`/v1/images/${project}/unassigned?session=${id}`);
    expect([id, answer.status]).toEqual([id, 200]);
  }
});
