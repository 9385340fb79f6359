import { createHash } from "node:crypto";
import { beforeAll, describe, expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { type FormPart, MULTIPART, encodeForm } from "../support/forms.ts";
import { PublishedBefore } from "../support/published-before.ts";
import { RawConnection } from "../support/raw-connection.ts";
import { type Build, UpdateApi, aSignature, formParts, plainOf } from "../support/updates.ts";

const UNKNOWN: [number, string] = [401, "record not found\n"];
const FORBIDDEN: [number, string] = [403, "forbidden\n"];
const NO_FILE: [number, string] = [400, "http: no such file\n"];
const NO_FORM: [number, string] = [400, "request Content-Type isn't multipart/form-data\n"];

const app = TestApp.forTests();
let api: UpdateApi;
let before: PublishedBefore;

beforeAll(async () => {
  before = await PublishedBefore.in(app);
  ({ api } = before);
});

describe("a signature", () => {
  const ROUTES: [method: string, path: string][] = [
    ["GET", "/api/v1/updates"],
    ["POST", "/api/v1/updates"],
    ["PATCH", "/api/v1/updates/1"],
    ["PATCH", "/api/v1/updates/999"],
  ];

  async function answers(headers: Record<string, string>): Promise<unknown[]> {
    return await Promise.all(
      ROUTES.map(async ([method, path]) => await plainOf(app.fetch(path, { method, headers }))),
    );
  }

  test("that is missing, empty, unknown or almost right is 401", async () => {
    const { signature } = api;
    const digest = createHash("sha256").update("").digest();
    await app.sql`insert into signatures (role, digest) values ('service', ${digest})`;
    for (const headers of [
      {},
      { signature: "" },
      { signature: "unknown" },
      { signature: `${signature}x` },
      { signature: signature.slice(1) },
      { signature: signature.toUpperCase() },
      { authorization: `Bearer ${signature}` },
      { "x-signature": signature },
    ])
      expect(await answers(headers)).toEqual(ROUTES.map(() => UNKNOWN));
    await before.isAllThereIs();
  });

  test("in another case of the header's name is right", async () => {
    const answer = await app.fetch("/api/v1/updates", { headers: { SIGNATURE: api.signature } });
    expect(answer.status).toBe(200);
  });

  test("of a client is 403", async () => {
    const signature = await aSignature(app, "client");
    expect(await answers({ signature })).toEqual(ROUTES.map(() => FORBIDDEN));
    await before.isAllThereIs();
  });

  test("is looked at before the body is sent", async () => {
    for (const [signature, status] of [
      ["unknown", 401],
      [await aSignature(app, "client"), 403],
    ] as const) {
      using connection = await RawConnection.open(app.url);
      const headers = { ...MULTIPART, signature, "content-length": 100_000 };
      connection.head("POST /api/v1/updates", headers);
      expect((await connection.response()).status).toBe(status);
    }
  });
});

describe("a request", () => {
  test.each([
    ["application/json", "{}"],
    ["application/x-www-form-urlencoded", "appVersion=2267_01"],
    ["text/plain", "x"],
    ["application/octet-stream", "x"],
  ])("of the type %s is no form", async (type, body) => {
    expect(
      await before.outlives(api.postForm(body, { headers: { "content-type": type } })),
    ).toEqual(NO_FORM);
  });

  test("without a type is no form", async () => {
    using connection = await RawConnection.open(app.url);
    connection.head("POST /api/v1/updates", { ...api.headers, "content-length": 0 });
    const { status, headers, body } = await connection.response();
    expect([status, body.toString()]).toEqual(NO_FORM);
    expect(headers.get("content-type")).toBe("text/plain; charset=utf-8");
  });

  test("without a boundary or with another one is refused", async () => {
    for (const type of ["multipart/form-data", "multipart/form-data; boundary=other"]) {
      const options = { headers: { "content-type": type } };
      const [status] = await before.outlives(api.postForm(encodeForm(formParts()), options));
      expect(status).toBe(400);
    }
  });

  test.each([
    ["no part at all", []],
    ["fields alone", [{ field: "appVersion", value: "2267_01" }]],
    [
      "a field of the file's name",
      [
        { field: "appVersion", value: "2267_01" },
        { field: "tmpFile", value: "text" },
      ],
    ],
    [
      "a file of another name",
      [
        { field: "appVersion", value: "2267_01" },
        { file: "a.apk", bytes: Buffer.from("x"), part: "file" },
      ],
    ],
  ] satisfies [string, FormPart[]][])("with %s has no file", async (_what, parts) => {
    expect(await before.outlives(api.postForm(encodeForm(parts)))).toEqual(NO_FILE);
  });
});

describe("a form", () => {
  const BAD: [string, Build][] = [
    ["no version", { version: "" }],
    ["a version of one digit", { version: "1" }],
    ["a version without a suffix", { version: "2267" }],
    ["a version with a suffix of one digit", { version: "2267_1" }],
    ["a version with a suffix of three digits", { version: "2267_001" }],
    ["a version without a number", { version: "_00" }],
    ["a version of letters", { version: "a_00" }],
    ["a version that is negative", { version: "-1_00" }],
    ["a version of ten digits", { version: "1234567890_00" }],
    ["a version with an ABI", { version: "2267_00arm" }],
    ["a version after a space", { version: " 2267_00" }],
    ["a version before a line's end", { version: "2267_00\n" }],
    ["a version that climbs", { version: "../2267_00" }],
    ["a version with NUL", { version: "2267_00\0" }],
    ["a version of other digits", { version: "２２６７_００" }],
    ["an ABI that climbs", { abi: ".." }],
    ["an ABI with a slash", { abi: "a/b" }],
    ["an ABI with a backslash", { abi: "a\\b" }],
    ["an ABI with a space", { abi: "arm 64" }],
    ["an ABI with NUL", { abi: "arm\0" }],
    ["an ABI of letters with accents", { abi: "ärm" }],
    ["an ABI of 33 characters", { abi: "a".repeat(33) }],
    ["a name that is empty", { name: "" }],
    ["a name of one dot", { name: "." }],
    ["a name of two dots", { name: ".." }],
    ["a name with two dots", { name: "a..apk" }],
    ["a name that climbs", { name: "../../etc/passwd" }],
    ["a name with a slash", { name: "a/b.apk" }],
    ["a name with a slash in front", { name: "/b.apk" }],
    ["a name with a backslash", { name: "a\\b.apk" }],
    ["a name that climbs with backslashes", { name: "..\\b.apk" }],
    ["a name with NUL", { name: "a\0.apk" }],
    ["a name with a control character", { name: "a\u0001.apk" }],
    ["a name with a tab", { name: "a\t.apk" }],
    ["a name with DEL", { name: "a\u007f.apk" }],
    ["a name of 256 bytes", { name: "a".repeat(256) }],
    ["a name of 256 bytes in 128 characters", { name: "ж".repeat(128) }],
    ["notes with NUL", { notes: "a\0b" }],
    ["notes over 64 KiB", { notes: "n".repeat(65_537) }],
    ["a channel in capitals", { fields: { channel: "Beta" } }],
    ["a channel that begins with a hyphen", { fields: { channel: "-beta" } }],
    ["a channel of 33 characters", { fields: { channel: "c".repeat(33) } }],
    ["a rollout below 0", { fields: { rollout: "-1" } }],
    ["a rollout over 100", { fields: { rollout: "100.1" } }],
    ["a rollout that is no number", { fields: { rollout: "NaN" } }],
    ["a rollout in words", { fields: { rollout: "half" } }],
    ["a withdrawal of yes", { fields: { withdrawn: "yes" } }],
    ["a floor of 2", { fields: { floorPerABI: "2" } }],
    ["a signature that is none", { fields: { signature: "abc" } }],
    ["a signature of 63 bytes", { fields: { signature: Buffer.alloc(63).toString("base64") } }],
  ];

  test.each(BAD)("with %s is refused", async (_what, build) => {
    const [status] = await before.outlives(api.publish({ version: before.version, ...build }));
    expect(status).toBe(400);
  });

  test("whose name is no UTF-8 is refused", async () => {
    const form = encodeForm(formParts({ version: before.version, name: "a\u0000b.apk" }));
    form[Buffer.from(form).indexOf("\0")] = 0xff;
    expect((await before.outlives(api.postForm(form)))[0]).toBe(400);
  });

  test("with a bad version in the query alone is refused", async () => {
    const parts = formParts().filter((part) => "file" in part);
    for (const query of ["", "?appVersion=..", "?appVersion=2267_0%00"])
      expect((await before.outlives(api.postForm(encodeForm(parts), { query })))[0]).toBe(400);
  });
});

describe("a form", () => {
  const PART: FormPart[] = [{ file: "b.apk", bytes: Buffer.from("b"), part: "tmpFile" }];
  const REPEATED: [string, FormPart[]][] = [
    ["tmpFile", PART],
    ["appVersion", [{ field: "appVersion", value: "2267_01" }]],
    ["targetABI", [{ field: "targetABI", value: "arm" }]],
    ["appNotes", [{ field: "appNotes", value: "b" }]],
    ["channel", [{ field: "channel", value: "beta" }]],
    ["rollout", [{ field: "rollout", value: "1" }]],
    ["tmpFile, as a field", [{ field: "tmpFile", value: "b" }]],
  ];
  test.each(REPEATED)("that repeats %s is refused", async (_what, again) => {
    const fields = { channel: "stable", rollout: "100" };
    const parts = formParts({ version: before.version, notes: "after", fields });
    for (const all of [
      [...parts, ...again],
      [...again, ...parts],
    ])
      expect((await before.outlives(api.postForm(encodeForm(all))))[0]).toBe(400);
  });
});
