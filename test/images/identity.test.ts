import { describe, expect, test } from "bun:test";
import { gzipSync } from "node:zlib";

import { objectOf, refusalOf } from "../support/answers.ts";
import { TestApp, type TestSession } from "../support/app.ts";
import { type FormPart } from "../support/forms.ts";
import { aFile, imageList, imageOf, sha256Of, textOf, upload } from "../support/images.ts";
import { indexState } from "../support/index-state.ts";
import { RawConnection } from "../support/raw-connection.ts";
import { aProject } from "../support/projects.ts";

const IS_FRAMES: FormPart = { field: "type", value: "frames" };

const app = TestApp.forTests();

async function send(session: TestSession, ...parts: FormPart[]): Promise<void> {
  expect((await upload(app, session, parts)).status).toBe(200);
}

/** An archive of one empty frame. */
function frames(fill: number): Uint8Array {
  return gzipSync(Buffer.from([...Array(8).fill(fill), 0, 0, 0, 0]));
}

function timeless(listed: Record<string, unknown>) {
  return { ...listed, storedAt: undefined };
}

/** Returns the bytes served for the image `many` under each query, as text. */
async function texts(queries: string[]): Promise<string[]> {
  return await Promise.all(queries.map(async (query) => await (await get("many", query)).text()));
}

function get(name: string, query = "", headers: Record<string, string> = {}): Promise<Response> {
  return app.fetch(`/v1/images/${app.project.id}/${name}${query}`, { headers });
}

describe("nobody replaces what another session sends", () => {
  test("whoever is first under a name", async () => {
    const [stranger, session] = [await app.aSession(), await app.aSession()];
    await send(stranger, aFile("icon", "a stranger's"));
    await send(session, aFile("icon", "the app's"));
    expect(await textOf(app, session, "icon")).toBe("the app's");
    expect(await textOf(app, stranger, "icon")).toBe("a stranger's");
    expect(await imageList(app, session)).toMatchObject([
      { name: "icon", bytes: 9, sha256: sha256Of("the app's") },
    ]);
  });

  test("also not its archives, by their names", async () => {
    const [stranger, session] = [await app.aSession(), await app.aSession()];
    const name = `${session.sessionID}-0.gz`;
    await send(stranger, IS_FRAMES, aFile(name, frames(1)));
    await send(session, IS_FRAMES, aFile(name, frames(2)));
    // The SDK sends the same name again while it is behind.
    await send(session, IS_FRAMES, aFile(name, frames(3)));
    const stored = await imageOf(app, name, app.project.id, `?session=${session.sessionID}`);
    expect(stored).toEqual(Uint8Array.from(frames(3)));
    const hashes = [2, 3].map((fill) => sha256Of(frames(fill))).toSorted();
    const listed = await imageList(app, session);
    expect(listed.map(({ kind, sha256 }) => [kind, sha256])).toEqual(
      hashes.map((hash) => ["frames", hash]),
    );
    for (const fill of [2, 3]) {
      const query = `?session=${session.sessionID}&sha256=${sha256Of(frames(fill))}`;
      expect(await imageOf(app, name, app.project.id, query)).toEqual(
        Uint8Array.from(frames(fill)),
      );
    }
  });

  test("nor its type or kind, with the same bytes", async () => {
    const [stranger, session] = [await app.aSession(), await app.aSession()];
    await send(stranger, IS_FRAMES, { ...aFile("type", "bytes"), type: "text/html" });
    await send(session, { ...aFile("type", "bytes"), type: "image/webp" });
    expect(await imageList(app, session)).toMatchObject([
      { kind: "image", contentType: "image/webp" },
    ]);
    expect(await imageList(app, stranger)).toMatchObject([{ kind: "frames" }]);
    const own = await get("type", `?session=${session.sessionID}`);
    expect(own.headers.get("content-type")).toBe("image/webp");
  });

  test("nor with a file of the same length and CRC-32", async () => {
    // Both texts have the CRC-32 4ddb0c25.
    const [one, other] = ["plumless", "buckeroo"];
    const session = await app.aSession();
    await send(session, aFile("crc", one), aFile("crc", other));
    expect((await imageList(app, session)).map(({ crc32 }) => crc32)).toEqual([
      "4ddb0c25",
      "4ddb0c25",
    ]);
    const tags = [];
    for (const text of [one, other]) {
      const answer = await get("crc", `?sha256=${sha256Of(text)}`);
      tags.push(answer.headers.get("etag"));
      expect(await answer.text()).toBe(text);
    }
    expect(new Set(tags).size).toBe(2);
  });
});

test("what another session stored before is the session's, too, once it sent it", async () => {
  const [first, second] = [await app.aSession(), await app.aSession()];
  const large = "x".repeat(300_000);
  await send(first, aFile("common", "same"), aFile("large", large));
  await send(second, aFile("common", "same"), aFile("large", large));
  const listed = await imageList(app, second);
  expect(listed.map(({ name }) => name)).toEqual(["common", "large"]);
  expect(await textOf(app, second, "large")).toBe(large);
  expect(await objectOf(app.fetch(`/v1/sessions/${second.sessionID}`))).toMatchObject({
    images: 2,
  });
});

test("a form that comes again, because its answer was lost, changes nothing", async () => {
  const session = await app.aSession();
  const parts = [aFile("retry", "small"), aFile("retry too", "y".repeat(200_000))];
  await send(session, ...parts);
  const before = await imageList(app, session);
  await send(session, ...parts);
  const after = await imageList(app, session);
  expect(after.map(timeless)).toEqual(before.map(timeless));
});

test("a small image and its row share one segment", async () => {
  const session = await app.aSession();
  const { segments } = await indexState(app.sql, app.objects);
  await send(session, aFile("one-1", "a"), aFile("one-2", "b".repeat(100_000)));
  expect((await indexState(app.sql, app.objects)).segments).toBe(segments + 1);
});

describe("an image by its name", () => {
  test("is the first, or the session's latest, or the one of the hash", async () => {
    const [first, second] = [await app.aSession(), await app.aSession()];
    await send(first, aFile("many", "1"));
    await send(second, aFile("many", "2"));
    await send(second, aFile("many", "3"));
    const [a, b] = [first, second].map(({ sessionID }) => `session=${sessionID}`);
    expect(await texts(["", `?${a}`, `?${b}`])).toEqual(["1", "1", "3"]);
    const [hash1, hash2] = ["1", "2"].map((text) => `sha256=${sha256Of(text)}`);
    const upper = `?sha256=${sha256Of("2").toUpperCase()}`;
    expect(await texts([`?${hash1}`, `?${hash2}`, upper, `?${b}&${hash2}`])).toEqual([
      "1",
      "2",
      "2",
      "2",
    ]);
    // Sending it again makes it the latest.
    await send(second, aFile("many", "2"));
    expect(await texts([`?${b}`, ""])).toEqual(["2", "1"]);
    for (const query of [
      `?${a}&${hash2}`,
      `?sha256=${"0".repeat(64)}`,
      "?session=1",
      "?session=9223372036854775807",
    ])
      expect(await refusalOf(get("many", query))).toEqual([404, "image not found"]);
  });

  test("is not found in another project", async () => {
    const { id } = await aProject(app);
    const session = await app.aSession();
    await send(session, aFile("here", "x"));
    for (const query of ["", `?session=${session.sessionID}`, `?sha256=${sha256Of("x")}`])
      expect((await app.fetch(`/v1/images/${id}/here${query}`)).status).toBe(404);
  });

  test.each([
    ["session=", "session must be text of 1 to 255 characters"],
    ["session=x", "session must be the id of a session"],
    ["session=-1", "session must be the id of a session"],
    ["session=9223372036854775808", "session must be the id of a session"],
    ["sha256=", "sha256 must be 64 hexadecimal digits"],
    ["sha256=abc", "sha256 must be 64 hexadecimal digits"],
    [`sha256=${"g".repeat(64)}`, "sha256 must be 64 hexadecimal digits"],
    [`sha256=${"0".repeat(65)}`, "sha256 must be 64 hexadecimal digits"],
  ])("is refused with ?%s", async (query, text) => {
    await send(await app.aSession(), aFile("refusing", "x"));
    expect(await refusalOf(get("refusing", `?${query}`))).toEqual([400, text]);
  });

  test("may be kept by a cache for ever, but not a session's latest", async () => {
    const session = await app.aSession();
    await send(session, aFile("cached", "before"));
    const latest = `?session=${session.sessionID}`;
    const before = await get("cached", latest);
    const etag = before.headers.get("etag") ?? "";
    expect(before.headers.get("cache-control")).toBe("private, no-cache");
    expect(etag).toBe(`"${sha256Of("before")}"`);
    expect((await get("cached", latest, { "if-none-match": etag })).status).toBe(304);
    await send(session, aFile("cached", "after!"));
    const after = await get("cached", latest, { "if-none-match": etag });
    expect([after.status, await after.text()]).toEqual([200, "after!"]);
    for (const query of ["", `?sha256=${sha256Of("after!")}`])
      expect((await get("cached", query)).headers.get("cache-control")).toContain("immutable");
  });
});

test("uploads that stall hold nothing back that others need", async () => {
  await using small = await TestApp.start({
    env: { INFLIGHT_BYTES_MAX: "1048576", COMMIT_BYTES: "65536" },
  });
  const session = await small.aSession();
  const connections = await Promise.all(
    Array.from({ length: 30 }, async () => await RawConnection.open(small.url)),
  );
  const begin =
    '--b\r\nContent-Disposition: form-data; name="f"; filename="stalled"\r\n\r\n' +
    "x".repeat(100_000);
  for (const connection of connections) {
    connection.head("POST /v1/mobile/images", {
      authorization: `Bearer ${session.token}`,
      "content-type": "multipart/form-data; boundary=b",
      "content-length": "500000",
    });
    connection.write(begin);
  }
  // 3 MB in total: far more than may be held.
  const statuses = [];
  for (let n = 0; n < 100 && statuses.at(-1) !== 200; n++) {
    if (n > 0) await Bun.sleep(100);
    const part = aFile("beside", "y");
    statuses.push(
      (await upload(small, session, [part], { path: "/v1/mobile/images", fields: [] })).status,
    );
  }
  expect(statuses.at(-1)).toBe(200);
  for (const connection of connections) connection[Symbol.dispose]();
});
