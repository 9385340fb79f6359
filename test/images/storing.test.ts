import { afterAll, beforeAll, describe, expect, test } from "bun:test";

import { metric, refusalOf } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";
import { type FormPart } from "../support/forms.ts";
import { aFile, imageOf, imagesOf, projectField, upload } from "../support/images.ts";
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
  let app: TestApp;
  let other: TestProject;

  beforeAll(async () => {
    const env = { COMMIT_BYTES: String(COMMIT_BYTES), FILE_SIZE_LIMIT: String(FILE_BYTES_MAX) };
    app = await TestApp.start({ store, env });
    other = await aProject(app);
  });

  afterAll(async () => {
    await app[Symbol.asyncDispose]();
  });

  test("a file larger than a segment is read back whole from many", async () => {
    const session = await app.aSession();
    const large = new Random(1).bytes(1_234_567);
    expect((await upload(app, session, [aFile("large", large)])).status).toBe(200);
    expect(await imageOf(app, "large")).toEqual(large);
    const [row] = await app.sql<[{ segments: number; chunks: number }]>`
      select cardinality(chunk_segments) as chunks,
        (select count(distinct id)::integer from unnest(chunk_segments) as id) as segments
      from images where name = 'large'`;
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

  test("the first bytes under a name win, and others are answered 200 and counted", async () => {
    const [first, second] = [await app.aSession(), await app.aSession()];
    expect((await upload(app, first, [aFile("shared", "first")])).status).toBe(200);
    const counts = async () =>
      await Promise.all(["stored", "known", "conflict"].map((one) => metric(app, outcome(one))));
    const before = await counts();
    const { segments } = await indexState(app.sql, app.objects);
    expect((await upload(app, second, [aFile("shared", "first")])).status).toBe(200);
    expect((await upload(app, second, [aFile("shared", "other")])).status).toBe(200);
    expect((await upload(app, second, [aFile("shared", "longer than that")])).status).toBe(200);
    const after = await counts();
    expect(after.map((count, index) => count - (before[index] ?? 0))).toEqual([0, 1, 2]);
    expect((await indexState(app.sql, app.objects)).segments).toBe(segments);
    expect(await imageOf(app, "shared")).toEqual(Uint8Array.from(Buffer.from("first")));
    expect(await imagesOf(app, first)).toEqual(["shared"]);
    expect(await imagesOf(app, second)).toEqual([]);
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

  test("of one name twice in a form the first file is stored", async () => {
    const session = await app.aSession();
    const twice = [aFile("twice", "first"), aFile("twice", "second"), aFile("thrice", "x")];
    expect((await upload(app, session, twice)).status).toBe(200);
    expect(Buffer.from((await imageOf(app, "twice")) ?? "").toString()).toBe("first");
    const large = ["a", "b"].map((letter) => aFile("large twice", letter.repeat(200_000)));
    expect((await upload(app, session, large)).status).toBe(200);
    const stored = Buffer.from((await imageOf(app, "large twice")) ?? "").toString();
    expect(stored).toBe("a".repeat(200_000));
    expect(await imagesOf(app, session)).toEqual(["large twice", "thrice", "twice"]);
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
    const listed = (await Promise.all(sessions.map((one) => imagesOf(app, one)))).flat();
    expect(listed.toSorted()).toEqual(contents.map((_, n) => `burst ${n}`).toSorted());
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
  const uses = await app.sql`select distinct uses from images`;
  expect(Array.from(uses)).toEqual([{ uses: 301 }]);
});

function shuffled(parts: FormPart[], seed: number): FormPart[] {
  const random = new Random(seed);
  return parts
    .map((part) => ({ part, key: random.next() }))
    .toSorted((a, b) => a.key - b.key)
    .map(({ part }) => part);
}
