import { beforeAll, describe, expect, test } from "bun:test";

import { SessionIds } from "../../src/sessions/session-id.ts";
import { Tokens } from "../../src/sessions/token.ts";
import { metric, refusalOf, sessionRow } from "../support/answers.ts";
import { TestApp, type TestSession } from "../support/app.ts";
import { eventually } from "../support/eventually.ts";
import { BOUNDARY, type FormPart, MULTIPART, encodeForm } from "../support/forms.ts";
import { aFile, imageOf, imagesOf, projectField, upload } from "../support/images.ts";
import { type TestProject, aProject } from "../support/projects.ts";
import { Random } from "../support/random.ts";
import { RawConnection } from "../support/raw-connection.ts";

const PATHS = ["/v1/ios/images", "/v1/mobile/images"];
const NAME_REFUSED = "the file name must be a plain name of up to 255 bytes";
const MALFORMED = "the form is malformed";

const app = TestApp.forTests();
let other: TestProject;
let inactive: TestProject;
let session: TestSession;

beforeAll(async () => {
  other = await aProject(app);
  inactive = await aProject(app, { active: false });
  session = await app.aSession();
});

function tokenOf(sessionId: bigint, expiresInMs: number): string {
  const expiresAt = Date.now() + expiresInMs;
  return new Tokens(["test-secret"]).sign({ sessionId, delay: 0, expiresAt });
}

function files(count: number, prefix: string): FormPart[] {
  return Array.from({ length: count }, (_, n) => aFile(`${prefix}-${n}`));
}

describe.each(PATHS)("a form at %s", (path) => {
  test("is answered an empty 200 once every file can be read back", async () => {
    const name = path.slice(1).replaceAll("/", " ");
    const parts = [...files(2, name), aFile(`empty ${name}`, "")];
    const own = await app.aSession();
    const answer = await upload(app, own, parts, { path });
    expect([answer.status, await answer.text()]).toEqual([200, ""]);
    for (const { file, bytes } of parts.flatMap((part) => ("file" in part ? [part] : [])))
      expect(await imageOf(app, file)).toEqual(Uint8Array.from(bytes));
    expect(await imagesOf(app, own)).toHaveLength(3);
    expect((await sessionRow(app, own))["images"]).toBe(3);
  });

  test.each<[string, () => FormPart[]]>([
    ["by number", () => [projectField(app)]],
    ["by key", () => [{ field: "projectKey", value: app.project.projectKey }]],
  ])("may name its project %s, before or after the files", async (how, fields) => {
    const names = ["before", "after"].map((place) => `${place} ${how} ${path.length}`);
    const [before = "", after = ""] = names;
    expect((await upload(app, session, [aFile(before)], { path, fields: fields() })).status).toBe(
      200,
    );
    const late = [aFile(after), ...fields()];
    expect((await upload(app, session, late, { path, fields: [] })).status).toBe(200);
    for (const name of names) expect(await imageOf(app, name)).toBeDefined();
  });

  test("of another project is refused, wherever it says so, and nothing is stored", async () => {
    const fields = [{ field: "projectID", value: String(other.projectID) }];
    const file = aFile(`foreign ${path.length}`);
    const text = "the session belongs to another project";
    for (const parts of [
      [...fields, file],
      [file, ...fields],
    ])
      expect(await refusalOf(upload(app, session, parts, { path, fields: [] }))).toEqual([
        403,
        text,
      ]);
    expect(await imageOf(app, `foreign ${path.length}`)).toBeUndefined();
    expect(await imageOf(app, `foreign ${path.length}`, other.id)).toBeUndefined();
  });

  test.each(["", "x", "1", "-1", "7286977268806823.5", "9007199254740993"])(
    "with the project %p is undecodable",
    async (value) => {
      const fields = [{ field: "projectID", value }];
      const text = "projectID is not an encoded project id";
      const answer = upload(app, session, [aFile("undecodable")], { path, fields });
      expect(await refusalOf(answer)).toEqual([422, text]);
      expect(await imageOf(app, "undecodable")).toBeUndefined();
    },
  );

  test("with an unknown project is 404", async () => {
    const fields = [{ field: "projectKey", value: "no-such-key" }];
    const answer = upload(app, session, [aFile("unknown")], { path, fields });
    expect(await refusalOf(answer)).toEqual([404, "project not found"]);
  });

  test("needs a session token", async () => {
    const id = BigInt(session.sessionID);
    const refused: [string, string][] = [
      ["x", "wrong token format"],
      ["a.b.c.d", "wrong token sign"],
      [tokenOf(id, -1), "token just expired"],
      [tokenOf(id, -60_000), "token expired"],
    ];
    for (const [token, text] of refused)
      expect(await refusalOf(upload(app, { token }, [aFile("no-token")], { path }))).toEqual([
        401,
        text,
      ]);
    expect(await imageOf(app, "no-token")).toBeUndefined();
    const token = tokenOf(id, 60_000);
    expect((await upload(app, { token }, [aFile("token")], { path })).status).toBe(200);
  });

  test.each<[string, string, number, string]>([
    ["JSON", "application/json", 415, "the body must be multipart/form-data"],
    ["no type", "", 415, "the body must be multipart/form-data"],
    [
      "another multipart",
      "multipart/mixed; boundary=x",
      415,
      "the body must be multipart/form-data",
    ],
    ["no boundary", "multipart/form-data", 415, "the form has no valid boundary"],
    ["another boundary", "multipart/form-data; boundary=other", 400, "the form was cut short"],
  ])("with %s for a content type is refused", async (_what, type, status, text) => {
    const headers = { "content-type": type };
    const answer = upload(app, session, [aFile("wrong-type")], { path, headers });
    expect(await refusalOf(answer)).toEqual([status, text]);
    expect(await imageOf(app, "wrong-type")).toBeUndefined();
  });

  test("without a body is refused", async () => {
    const headers = {
      authorization: `Bearer ${session.token}`,
      ...MULTIPART,
    };
    const answer = app.fetch(path, { method: "POST", headers });
    expect(await refusalOf(answer)).toEqual([400, "the form was cut short"]);
  });
});

test("the documented route wants the project in the form, today's does not", async () => {
  const file = aFile("without project");
  const refused = upload(app, session, [file], { fields: [] });
  expect(await refusalOf(refused)).toEqual([400, "projectID is missing"]);
  expect(await imageOf(app, "without project")).toBeUndefined();
  const taken = await upload(app, session, [file], { fields: [], path: "/v1/mobile/images" });
  expect(taken.status).toBe(200);
  expect(await imageOf(app, "without project")).toBeDefined();
});

test("a session of a project that is switched off must start anew", async () => {
  const sessionId = new SessionIds(() => 60_000).next();
  await app.sql`insert into sessions (id, project_id, started_at)
    values (${String(sessionId)}, ${inactive.id}, now())`;
  const token = tokenOf(sessionId, 60_000);
  const fields = [{ field: "projectID", value: String(inactive.projectID) }];
  const refused = upload(app, { token }, [aFile("switched-off")], { fields });
  expect(await refusalOf(refused)).toEqual([401, "project is not active"]);
  expect(await imageOf(app, "switched-off", inactive.id)).toBeUndefined();
});

describe("a file name is stored as it is or refused, never changed", () => {
  const euros = "€".repeat(85);
  const fits = ["a", "hash.png", "a b", "käse", "截图.png", "😀", "a;b=c", "100%", "a%2Fb", "?#&+"];

  test.each([...fits, "x".repeat(255), euros, ".hidden", "a.b.c", "'", "null"])(
    "%p is stored",
    async (name) => {
      expect((await upload(app, session, [aFile(name)])).status).toBe(200);
      expect(await imageOf(app, name)).toEqual(Uint8Array.from(Buffer.from(`bytes of ${name}`)));
      expect(await imagesOf(app, session)).toContain(name);
    },
  );

  test.each<[string, string]>([
    ["", NAME_REFUSED],
    [".", NAME_REFUSED],
    ["..", NAME_REFUSED],
    ["../../etc/passwd", NAME_REFUSED],
    ["a..b", NAME_REFUSED],
    ["a/b", NAME_REFUSED],
    ["/a", NAME_REFUSED],
    ["a\\b", NAME_REFUSED],
    ["C:\\temp\\a.png", NAME_REFUSED],
    ["a\tb", NAME_REFUSED],
    ["a\u0085b", NAME_REFUSED],
    ["a\u0000b", MALFORMED],
    ["a\u001fb", MALFORMED],
    ["a\u007fb", MALFORMED],
    ["x".repeat(256), NAME_REFUSED],
    [`${euros}x`, NAME_REFUSED],
    ["x".repeat(20_000), MALFORMED],
  ])("%p is refused", async (name, text) => {
    const before = await imagesOf(app, session);
    const parts = [aFile("good neighbour"), aFile(name)];
    expect(await refusalOf(upload(app, session, parts))).toEqual([400, text]);
    expect(await imagesOf(app, session)).toEqual(before);
  });

  test("a quote in it is escaped by a backslash, which is none of it", async () => {
    expect((await upload(app, session, [aFile('a\\"b')])).status).toBe(200);
    expect(await imagesOf(app, session)).toContain('a"b');
    expect(await imageOf(app, 'a"b')).toBeDefined();
  });

  test("bytes that are no UTF-8 are refused", async () => {
    const form = Buffer.from(encodeForm([projectField(app), aFile("k#se")]));
    form[form.indexOf("k#se") + 1] = 0xe4;
    const answer = app.post("/v1/ios/images", form, {
      authorization: `Bearer ${session.token}`,
      ...MULTIPART,
    });
    expect(await refusalOf(answer)).toEqual([400, NAME_REFUSED]);
  });
});

describe("the number of parts", () => {
  test("may be 1,000", async () => {
    const own = await app.aSession();
    expect((await upload(app, own, files(999, "thousand"))).status).toBe(200);
    expect((await sessionRow(app, own))["images"]).toBe(999);
    expect(await imageOf(app, "thousand-998")).toBeDefined();
  });

  test.each([1001, 10_000])("may not be %d, and then nothing is stored", async (count) => {
    const own = await app.aSession();
    const text = "the form has over 1000 parts or a field over 4096 bytes";
    expect(await refusalOf(upload(app, own, files(count - 1, `too-many-${count}`)))).toEqual([
      400,
      text,
    ]);
    expect(await imagesOf(app, own)).toEqual([]);
  });
});

describe("a form that is cut short stores nothing", () => {
  test.each<[string, (form: Buffer) => number]>([
    ["in its first file", (form) => form.indexOf("first bytes") + 5],
    ["in its last file", (form) => form.length - 100],
    ["before its closing boundary", (form) => form.lastIndexOf(`--${BOUNDARY}--`)],
    ["in its closing boundary", (form) => form.lastIndexOf(`--${BOUNDARY}--`) + 10],
    [
      "in the hyphens that close it",
      (form) => form.lastIndexOf(`--${BOUNDARY}--`) + BOUNDARY.length + 3,
    ],
  ])("%s", async (_where, cut) => {
    const own = await app.aSession();
    const large = new Random(7).bytes(100_000);
    const parts = [aFile("cut-1", "first bytes"), aFile("cut-2", large)];
    const form = Buffer.from(encodeForm([projectField(app), ...parts]));
    const body = form.subarray(0, cut(form));
    const headers = {
      authorization: `Bearer ${own.token}`,
      ...MULTIPART,
    };
    expect(await refusalOf(app.post("/v1/ios/images", body, headers))).toEqual([
      400,
      "the form was cut short",
    ]);
    {
      using connection = await RawConnection.open(app.url);
      connection.head("POST /v1/ios/images", { ...headers, "content-length": form.length });
      connection.write(body);
      await app.fetch("/livez");
    }
    await eventually("no bytes are held", async () => {
      return (await metric(app, "floodgate_inflight_bytes")) === 0;
    });
    expect(await imagesOf(app, own)).toEqual([]);
  });
});
