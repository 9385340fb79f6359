import { beforeAll, describe, expect, test } from "bun:test";

import { metric, refusalOf } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { type FormPart } from "../support/forms.ts";
import {
  aFile,
  imageList,
  imageOf,
  imagesOf,
  projectField,
  sha256Of,
  textOf,
  upload,
} from "../support/images.ts";
import { indexState } from "../support/index-state.ts";
import { type TestProject, aProject } from "../support/projects.ts";
import { Random } from "../support/random.ts";

const COMMIT_BYTES = 65_536;
const FILE_BYTES_MAX = 1_500_000;
const OVER = `the file is over the limit of ${FILE_BYTES_MAX} bytes`;

function outcome(name: string): string {
  return `floodgate_images_total{outcome="${name}"}`;
}

describe.each(["files", "s3"] as const)("with small segments and objects in %s", (store) => {
  const env = { COMMIT_BYTES: String(COMMIT_BYTES), FILE_SIZE_LIMIT: String(FILE_BYTES_MAX) };
  const app = TestApp.forTests({ store, env });
  let other: TestProject;

  beforeAll(async () => {
    other = await aProject(app);
  });

  test("a file larger than a segment is read back whole from many", async () => {
    const session = await app.aSession();
    const large = new Random(1).bytes(1_234_567);
    expect((await upload(app, session, [aFile("large", large)])).status).toBe(200);
    expect(await imageOf(app, "large")).toEqual(large);
    const [row] = await app.sql<[{ segments: number; chunks: number }]>`
      select cardinality(chunk_segments) as chunks,
        (select count(distinct id)::integer from unnest(chunk_segments) as id) as segments
      from image_contents where name = 'large'`;
    expect(row.segments).toBeGreaterThan(5);
    expect(row.chunks).toBeGreaterThanOrEqual(row.segments);
  });

  test("files of every size around the chunks come back as they were", async () => {
    const session = await app.aSession();
    const around = [0, 32 * 1024, COMMIT_BYTES, 128 * 1024, 256 * 1024];
    const sizes = around.flatMap((size) => [size - 1, size, size + 1]).filter((size) => size >= 0);
    const files = sizes.map((size) => ({
      name: `size ${size}`,
      bytes: new Random(size).bytes(size),
    }));
    const parts = files.map(({ name, bytes }) => aFile(name, bytes));
    expect((await upload(app, session, parts)).status).toBe(200);
    for (const { name, bytes } of files) expect(await imageOf(app, name)).toEqual(bytes);
    expect(files.length).toBe(14);
  });

  test("a file of exactly the limit is stored, one byte more is refused with its whole form", async () => {
    const session = await app.aSession();
    const full = new Random(2).bytes(FILE_BYTES_MAX);
    expect(
      (await upload(app, session, [aFile("full", full), aFile("full too", full)])).status,
    ).toBe(200);
    expect(await imageOf(app, "full")).toEqual(full);
    const over = [aFile("small"), aFile("over", new Uint8Array(FILE_BYTES_MAX + 1))];
    expect(await refusalOf(upload(app, session, over))).toEqual([413, OVER]);
    expect(await imagesOf(app, session)).toEqual(["full", "full too"]);
  });

  test("equal bytes under a name are stored once, others beside them, and every session reads its own", async () => {
    const [first, second] = [await app.aSession(), await app.aSession()];
    expect((await upload(app, first, [aFile("shared", "first")])).status).toBe(200);
    const counts = async () =>
      await Promise.all(["stored", "known", "conflict"].map((one) => metric(app, outcome(one))));
    const before = await counts();
    const { segments } = await indexState(app.sql, app.objects);
    expect((await upload(app, second, [aFile("shared", "first")])).status).toBe(200);
    expect((await indexState(app.sql, app.objects)).segments).toBe(segments);
    expect(await textOf(app, second, "shared")).toBe("first");
    for (const text of ["other", "longer than that", "other"])
      expect((await upload(app, second, [aFile("shared", text)])).status).toBe(200);
    const after = await counts();
    expect(after.map((count, index) => count - (before[index] ?? 0))).toEqual([0, 2, 2]);
    expect(await textOf(app, second, "shared")).toBe("other");
    expect(await textOf(app, first, "shared")).toBe("first");
    expect(Buffer.from((await imageOf(app, "shared")) ?? "").toString()).toBe("first");
    expect((await imageList(app, first)).map(({ sha256 }) => sha256)).toEqual([sha256Of("first")]);
    const own = (await imageList(app, second)).map(({ name, sha256 }) => [name, sha256]);
    const hashes = ["first", "other", "longer than that"].map(sha256Of).toSorted();
    expect(own).toEqual(hashes.map((hash) => ["shared", hash]));
    const [{ rows }] = await app.sql<[{ rows: number }]>`
      select count(*)::integer as rows from image_contents where name = 'shared'`;
    expect(rows).toBe(3);
  });

  test("a name is another file in another project", async () => {
    const [here, there] = [
      await app.aSession(),
      await app.aSession({ projectID: other.projectID }),
    ];
    const fields = [{ field: "projectKey", value: other.projectKey }];
    expect((await upload(app, here, [aFile("both", "here")])).status).toBe(200);
    expect((await upload(app, there, [aFile("both", "there")], { fields })).status).toBe(200);
    expect(Buffer.from((await imageOf(app, "both")) ?? "").toString()).toBe("here");
    expect(Buffer.from((await imageOf(app, "both", other.id)) ?? "").toString()).toBe("there");
  });

  test("one name twice in a form is two images, or one when the bytes are equal", async () => {
    const session = await app.aSession();
    const twice = [aFile("twice", "first"), aFile("twice", "second"), aFile("thrice", "x")];
    expect((await upload(app, session, [...twice, aFile("thrice", "x")])).status).toBe(200);
    expect(Buffer.from((await imageOf(app, "twice")) ?? "").toString()).toBe("first");
    expect(await textOf(app, session, "twice")).toBe("second");
    const back = [aFile("twice", "first"), aFile("twice", "second"), aFile("twice", "first")];
    expect((await upload(app, session, back)).status).toBe(200);
    expect(await textOf(app, session, "twice")).toBe("first");
    const large = ["a", "b"].map((letter) => aFile("large twice", letter.repeat(200_000)));
    expect((await upload(app, session, [...large, ...large])).status).toBe(200);
    expect(await textOf(app, session, "large twice")).toBe("b".repeat(200_000));
    for (const letter of ["a", "b"]) {
      const text = letter.repeat(200_000);
      const query = `?sha256=${sha256Of(text)}`;
      const stored = await imageOf(app, "large twice", app.project.id, query);
      expect(Buffer.from(stored ?? "").toString()).toBe(text);
    }
    const names = ["large twice", "large twice", "thrice", "twice", "twice"];
    expect(await imagesOf(app, session)).toEqual(names);
    const uses = await app.sql`select uses from image_contents where name = 'thrice'`;
    expect(Array.from(uses)).toEqual([{ uses: 2 }]);
  });

  test("a small file that comes again costs no PUT, up to the size of a chunk, and a larger one is stored once", async () => {
    const session = await app.aSession();
    const [small, large] = [new Random(21).bytes(128 * 1024), new Random(22).bytes(128 * 1024 + 1)];
    const parts = [aFile("again", small), aFile("none", ""), aFile("tiny", "x")];
    expect((await upload(app, session, [...parts, aFile("large", large)])).status).toBe(200);
    const again = await app.aSession();
    const { segments } = await indexState(app.sql, app.objects);
    expect((await upload(app, again, parts)).status).toBe(200);
    expect((await indexState(app.sql, app.objects)).segments).toBe(segments);
    expect(await imagesOf(app, again)).toEqual(["again", "none", "tiny"]);
    expect((await upload(app, again, [aFile("large", large)])).status).toBe(200);
    const rows = await app.sql`
      select uses from image_contents where sha256 = decode(${sha256Of(large)}, 'hex')`;
    expect(Array.from(rows)).toEqual([{ uses: 2 }]);
    const query = `?session=${again.sessionID}`;
    expect(await imageOf(app, "large", app.project.id, query)).toEqual(large);
  });

  test("forms that come all at once are stored whole, each name once", async () => {
    const sessions = await Promise.all(Array.from({ length: 8 }, () => app.aSession()));
    const contents = Array.from({ length: 12 }, (_, n) => new Random(n).bytes(1000 + n * 9000));
    const answers = await Promise.all(
      Array.from({ length: 48 }, async (_, n) => {
        const names = [n % 12, (n + 1) % 12, (n * 7) % 12];
        const parts = names.map((name) => aFile(`burst ${name}`, contents[name] ?? ""));
        const session = sessions[n % sessions.length];
        return session && (await upload(app, session, shuffled(parts, n)));
      }),
    );
    expect(answers.map((answer) => answer?.status)).toEqual(answers.map(() => 200));
    for (const [name, bytes] of contents.entries())
      expect(await imageOf(app, `burst ${name}`)).toEqual(bytes);
    const sent = sessions.map(() => new Set<string>());
    for (let n = 0; n < 48; n++)
      for (const name of [n % 12, (n + 1) % 12, (n * 7) % 12])
        sent[n % sessions.length]?.add(`burst ${name}`);
    for (const [index, session] of sessions.entries())
      expect(new Set(await imagesOf(app, session))).toEqual(sent[index] ?? new Set());
  });

  test("a form that is refused at its end leaves nothing that a name finds", async () => {
    const session = await app.aSession();
    const parts = [aFile("orphan", new Random(9).bytes(300_000)), aFile("../x")];
    expect((await refusalOf(upload(app, session, parts)))[0]).toBe(400);
    expect(await imageOf(app, "orphan")).toBeUndefined();
    const again = [projectField(app), aFile("orphan", "complete")];
    expect((await upload(app, session, again, { fields: [] })).status).toBe(200);
    expect(Buffer.from((await imageOf(app, "orphan")) ?? "").toString()).toBe("complete");
  });
});

test("stored names may come again in any order, all at once, and every use counts", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  const parts = Array.from({ length: 60 }, (_, n) => aFile(`again ${n}`));
  expect((await upload(app, session, parts)).status).toBe(200);
  for (let round = 0; round < 5; round++) {
    const forms = Array.from({ length: 60 }, (_, n) => shuffled(parts, round * 60 + n));
    const answers = await Promise.all(forms.map((form) => upload(app, session, form)));
    expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200));
  }
  const uses = await app.sql`select distinct uses from image_contents`;
  expect(Array.from(uses)).toEqual([{ uses: 301 }]);
});

function shuffled(parts: FormPart[], seed: number): FormPart[] {
  const random = new Random(seed);
  return parts
    .map((part) => ({ part, key: random.next() }))
    .toSorted((a, b) => a.key - b.key)
    .map(({ part }) => part);
}
