import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { pino } from "pino";
import { Type } from "typebox";
import { Value } from "typebox/value";

import { startServer } from "../../src/server.ts";
import { objectOf, refusalOf } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { eventually } from "../support/eventually.ts";
import { type FormPart } from "../support/forms.ts";
import { aFile, hashList, upload } from "../support/images.ts";
import { aProject } from "../support/projects.ts";

const Page = Type.Object(
  {
    images: Type.Array(Type.Object({ name: Type.String(), bytes: Type.Number() })),
    nextCursor: Type.Union([Type.String(), Type.Null()]),
  },
  { additionalProperties: false },
);

let app: TestApp;

beforeAll(async () => {
  app = await TestApp.start();
});

afterAll(async () => {
  await app[Symbol.asyncDispose]();
});

/** A session of a new project, and what sends files of it. */
async function aSender() {
  const project = await aProject(app);
  const session = await app.aSession({ projectID: project.projectID });
  const fields = [{ field: "projectID", value: String(project.projectID) }];
  const send = async (...parts: FormPart[]) =>
    expect((await upload(app, session, parts, { fields })).status).toBe(200);
  return { project, session, send };
}

describe("imagesHashList", () => {
  test("is empty for a project without images", async () => {
    const { project } = await aSender();
    expect(await hashList(app, project.projectID)).toEqual([]);
  });

  test("has the most used first, and the newest of those that are used as often", async () => {
    const { project, send } = await aSender();
    for (const name of ["a", "b", "c"]) await send(aFile(name));
    await send(aFile("b"));
    await send(aFile("a"), aFile("b"));
    await eventually("the list is fresh", async () =>
      Bun.deepEquals(await hashList(app, project.projectID), ["b", "a", "c"]),
    );
    await send(aFile("d"));
    await eventually("the newest is before its equals", async () =>
      Bun.deepEquals(await hashList(app, project.projectID), ["b", "a", "d", "c"]),
    );
  });

  test("has 40 names at most, and keeps the used ones", async () => {
    const { project, send } = await aSender();
    await send(aFile("used"));
    await send(aFile("used"));
    for (let n = 0; n < 41; n++) await send(aFile(`file ${n}`));
    const newest = Array.from({ length: 39 }, (_, n) => `file ${40 - n}`);
    await eventually("the list is full", async () =>
      Bun.deepEquals(await hashList(app, project.projectID), ["used", ...newest]),
    );
  });

  test("is the project's own", async () => {
    const [one, other] = [await aSender(), await aSender()];
    await one.send(aFile("mine"));
    await other.send(aFile("theirs"));
    await Bun.sleep(1000);
    expect(await hashList(app, one.project.projectID)).toEqual(["mine"]);
    expect(await hashList(app, other.project.projectID)).toEqual(["theirs"]);
  });

  test("has a new name within a second, at every server and for resumed sessions", async () => {
    const { project, session, send } = await aSender();
    const log = pino({ level: "silent" });
    const server = await startServer(app.config, app.databaseUrl, { log });
    try {
      const listed = async (base: string) => {
        const fields = { projectID: project.projectID, trackerVersion: "1.0.14" };
        const body = JSON.stringify({ ...fields, token: session.token });
        const answer = fetch(new URL("/v1/mobile/start", base), { method: "POST", body });
        return (await objectOf(answer))["imagesHashList"];
      };
      const bases = [app.url, server.url];
      // Both have an empty list in memory now.
      for (const base of bases) expect(await listed(base)).toEqual([]);
      await send(aFile("fresh"));
      await Bun.sleep(1000);
      for (const base of bases) expect(await listed(base)).toEqual(["fresh"]);
    } finally {
      await server.stop();
    }
  });
});

describe("the images of a session", () => {
  test("are those that it was the first to store, by name, with what is known of each", async () => {
    const { session, send } = await aSender();
    await send(aFile("b", "bytes"), aFile("A", ""), aFile("ä", "x"), aFile("a", "xyz"));
    const { images } = await objectOf(app.fetch(`/v1/sessions/${session.sessionID}/images`));
    expect(images).toEqual(
      [
        ["A", 0, "00000000"],
        ["a", 3, "eb8eba67"],
        ["b", 5, crcOf("bytes")],
        ["ä", 1, crcOf("x")],
      ].map(([name, bytes, crc32]) => ({
        name,
        bytes,
        crc32,
        kind: "image",
        contentType: "image/png",
        storedAt: expect.stringMatching(/^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
      })),
    );
  });

  test("come in pages that together have every one once", async () => {
    const { session, send } = await aSender();
    const names = Array.from({ length: 23 }, (_, n) => `€ ${String(n).padStart(2, "0")}`);
    await send(...names.toReversed().map((name) => aFile(name)));
    for (const limit of [1, 7, 22, 23, 24]) {
      const listed: string[] = [];
      let cursor: string | null = "";
      for (let pages = 0; cursor !== null && pages < 30; pages++) {
        const query: string = cursor === "" ? "" : `&cursor=${cursor}`;
        const path = `/v1/sessions/${session.sessionID}/images?limit=${limit}${query}`;
        const { images, nextCursor } = Value.Parse(Page, await objectOf(app.fetch(path)));
        expect(images.length).toBeLessThanOrEqual(limit);
        listed.push(...images.map(({ name }) => name));
        cursor = nextCursor;
      }
      expect(listed).toEqual(names);
    }
  });

  test("are an empty page for a session without any", async () => {
    const { sessionID } = await app.aSession();
    expect(await objectOf(app.fetch(`/v1/sessions/${sessionID}/images`))).toEqual({
      images: [],
      nextCursor: null,
    });
  });

  test("are not found for a session that is not there", async () => {
    for (const id of ["1", "x", "9223372036854775808"])
      expect(await refusalOf(app.fetch(`/v1/sessions/${id}/images`))).toEqual([
        404,
        "session not found",
      ]);
  });

  test.each(["0", "1001", "1.5", "x", ""])("refuse limit=%s", async (limit) => {
    const { sessionID } = await app.aSession();
    const text = "limit must be a whole number from 1 to 1000";
    const answer = app.fetch(`/v1/sessions/${sessionID}/images?limit=${limit}`);
    expect(await refusalOf(answer)).toEqual([400, text]);
  });

  test.each(["AA", "!!!", "_w", "8J-Y"])(
    "answer the cursor %s, which is none, with 400",
    async (cursor) => {
      const { sessionID } = await app.aSession();
      const answer = app.fetch(`/v1/sessions/${sessionID}/images?cursor=${cursor}`);
      expect(await refusalOf(answer)).toEqual([400, "cursor is not one that this route gave out"]);
    },
  );
});

function crcOf(text: string): string {
  return Bun.hash.crc32(text).toString(16).padStart(8, "0");
}
