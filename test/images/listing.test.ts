import { describe, expect, test } from "bun:test";
import { pino } from "pino";
import { Type } from "typebox";
import { Value } from "typebox/value";

import { startServer } from "../../src/processes/server.ts";
import { objectOf, refusalOf } from "../support/answers.ts";
import { TestApp, type TestSession } from "../support/app.ts";
import { eventually } from "../support/eventually.ts";
import { type FormPart } from "../support/forms.ts";
import { aFile, from, hashList, sha256Of, upload } from "../support/images.ts";
import { aProject } from "../support/projects.ts";

const Page = Type.Object(
  {
    images: Type.Array(
      Type.Object({ name: Type.String(), bytes: Type.Number(), sha256: Type.String() }),
    ),
    nextCursor: Type.Union([Type.String(), Type.Null()]),
  },
  { additionalProperties: false },
);

const app = TestApp.forTests({ env: { TRUSTED_PROXIES: "127.0.0.0/8" } });

/** Makes a new project, and functions that send files from its sessions. */
async function aSender() {
  const project = await aProject(app);
  const { projectID } = project;
  const [session, second] = [await app.aSession({ projectID }), await app.aSession({ projectID })];
  const fields = [{ field: "projectID", value: String(projectID) }];
  const sendAs = async (sender: TestSession, network: number, ...parts: FormPart[]) => {
    const answer = await upload(app, sender, parts, { fields, headers: from(network) });
    expect(answer.status).toBe(200);
  };
  const send = async (...parts: FormPart[]) => await sendAs(session, 1, ...parts);
  /** Sends the files from two sessions in two networks, which makes the images shared. */
  const share = async (...parts: FormPart[]) => {
    await send(...parts);
    await sendAs(second, 2, ...parts);
  };
  return { project, session, second, send, sendAs, share };
}

describe("imagesHashList", () => {
  test("is empty for a project without images", async () => {
    const { project } = await aSender();
    expect(await hashList(app, project.projectID)).toEqual([]);
  });

  test("has only what two sessions sent from different networks with equal content", async () => {
    const { project, session, second, sendAs } = await aSender();
    const frames = { field: "type", value: "frames" };
    await sendAs(session, 1, aFile("one session"));
    await sendAs(session, 2, aFile("one session"));
    await sendAs(session, 1, aFile("one network"));
    await sendAs(second, 1, aFile("one network"));
    await sendAs(session, 1, aFile("other bytes", "of one"));
    await sendAs(second, 2, aFile("other bytes", "of the other"));
    await sendAs(session, 1, aFile("as frames"));
    await sendAs(second, 2, aFile("as frames"), frames);
    await sendAs(session, 1, aFile("listed"));
    await sendAs(second, 2, aFile("listed"));
    await sendAs(session, 1, aFile("also large", "x".repeat(200_000)));
    await sendAs(second, 2, aFile("also large", "x".repeat(200_000)));
    await eventually("both are listed", async () =>
      Bun.deepEquals(await hashList(app, project.projectID), ["also large", "listed"]),
    );
  });

  test("takes one IPv6 network of 64 bits for one address", async () => {
    const { project, session, second } = await aSender();
    const fields = [{ field: "projectID", value: String(project.projectID) }];
    const sendFrom = async (sender: TestSession, address: string, name: string) => {
      const headers = { "x-forwarded-for": address };
      expect((await upload(app, sender, [aFile(name)], { fields, headers })).status).toBe(200);
    };
    await sendFrom(session, "2001:db8:1:2::1", "same");
    await sendFrom(second, "2001:db8:1:2:ffff::2", "same");
    await sendFrom(session, "2001:db8:1:2::1", "different");
    await sendFrom(second, "2001:db8:1:3::1", "different");
    await eventually("it is listed", async () =>
      Bun.deepEquals(await hashList(app, project.projectID), ["different"]),
    );
  });

  test("keeps nothing of an address but a hash of 16 bits", async () => {
    const { send } = await aSender();
    await send(aFile("traced"));
    const rows = await app.sql`
      select to_jsonb(c) as row from image_contents c where name = 'traced'
      union all select to_jsonb(u) from image_uses u where name = 'traced'`;
    expect(rows).toHaveLength(2);
    expect(JSON.stringify(rows)).not.toContain("203.0");
    const [{ network }] = await app.sql<[{ network: number }]>`
      select network from image_contents where name = 'traced'`;
    expect(Number.isInteger(network) && Math.abs(network) <= 0x8000).toBe(true);
  });

  test("has the most used first, and the newest of those that are used as often", async () => {
    const { project, send, share } = await aSender();
    for (const name of ["a", "b", "c"]) await share(aFile(name));
    await send(aFile("b"));
    await send(aFile("a"), aFile("b"));
    await eventually("the list is fresh", async () =>
      Bun.deepEquals(await hashList(app, project.projectID), ["b", "a", "c"]),
    );
    await share(aFile("d"));
    await eventually("the newest is before its equals", async () =>
      Bun.deepEquals(await hashList(app, project.projectID), ["b", "a", "d", "c"]),
    );
  });

  test("has 40 names at most, and keeps the used ones", async () => {
    const { project, send, share } = await aSender();
    await share(aFile("used"), aFile("used", "other bytes"));
    await send(aFile("used"), aFile("used", "other bytes"));
    await share(...Array.from({ length: 41 }, (_, n) => aFile(`file ${n}`)));
    await eventually("the list is full", async () => {
      const list = await hashList(app, project.projectID);
      return (
        Array.isArray(list) && list.length === 40 && new Set(list).size === 40 && list[0] === "used"
      );
    });
  });

  test("is the project's own", async () => {
    const [one, other] = [await aSender(), await aSender()];
    await one.share(aFile("mine"));
    await other.share(aFile("theirs"));
    await Bun.sleep(1000);
    expect(await hashList(app, one.project.projectID)).toEqual(["mine"]);
    expect(await hashList(app, other.project.projectID)).toEqual(["theirs"]);
  });

  test("has a new name within a second, at every server and for resumed sessions, unless it is switched off", async () => {
    const { project, session, share } = await aSender();
    const log = pino({ level: "silent" });
    const server = await startServer(app.config, app.databaseUrl, { log });
    const off = { ...app.config, imagesHashList: false };
    const without = await startServer(off, app.databaseUrl, { log });
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
      await share(aFile("fresh"));
      await Bun.sleep(1000);
      for (const base of bases) expect(await listed(base)).toEqual(["fresh"]);
      expect(await listed(without.url)).toEqual([]);
    } finally {
      await server[Symbol.asyncDispose]();
      await without[Symbol.asyncDispose]();
    }
  });
});

describe("the images of a session", () => {
  test("are those that it sent, by name, with what is known of each", async () => {
    const { session, send } = await aSender();
    await send(aFile("b", "bytes"), aFile("A", ""), aFile("ä", "x"), aFile("a", "xyz"));
    const { images } = await objectOf(app.fetch(`/v1/sessions/${session.sessionID}/images`));
    expect(images).toEqual(
      [
        ["A", ""],
        ["a", "xyz"],
        ["b", "bytes"],
        ["ä", "x"],
      ].map(([name = "", content = ""]) => ({
        name,
        bytes: content.length,
        crc32: crcOf(content),
        sha256: sha256Of(content),
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
    // Contents of one name may be split across two pages.
    await send(aFile("€ 11", "other"), aFile("€ 11", "third"));
    names.push("€ 11", "€ 11");
    names.sort();
    for (const limit of [1, 7, 12, 13, 14, 24, 25, 26]) {
      const listed: string[] = [];
      let cursor: string | null = "";
      const hashes = new Set<string>();
      for (let pages = 0; cursor !== null && pages < 30; pages++) {
        const query: string = cursor === "" ? "" : `&cursor=${cursor}`;
        const path = `/v1/sessions/${session.sessionID}/images?limit=${limit}${query}`;
        const { images, nextCursor } = Value.Parse(Page, await objectOf(app.fetch(path)));
        expect(images.length).toBeLessThanOrEqual(limit);
        listed.push(...images.map(({ name }) => name));
        for (const { sha256 } of images) hashes.add(sha256);
        cursor = nextCursor;
      }
      expect(listed).toEqual(names);
      expect(hashes.size).toBe(names.length);
    }
  });

  test("go on after a cursor that is a name alone, as the version before gave it out", async () => {
    const { session, send } = await aSender();
    await send(aFile("a"), aFile("b"), aFile("b", "other"), aFile("c"));
    const after = async (cursor: string) => {
      const path = `/v1/sessions/${session.sessionID}/images?cursor=${Buffer.from(cursor).toString("base64url")}`;
      return Value.Parse(Page, await objectOf(app.fetch(path))).images.map(({ name }) => name);
    };
    expect(await after("a")).toEqual(["b", "b", "c"]);
    expect(await after("b")).toEqual(["c"]);
    const first = await objectOf(app.fetch(`/v1/sessions/${session.sessionID}/images?limit=1`));
    expect(first["nextCursor"]).toBe(Buffer.from("a").toString("base64url"));
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

  test.each(["AA", "!!!", "_w", "8J-Y", "YQB4", "YQAA"])(
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
