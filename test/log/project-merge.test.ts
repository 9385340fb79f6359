import { describe, expect, test } from "bun:test";
import { pino } from "pino";

import { buildWrite } from "../../src/app.ts";
import { mergeProject } from "../../src/log/project-merge.ts";
import { type ProjectRecord } from "../../src/log/stored-segment.ts";
import { UsageError } from "../../src/platform/errors.ts";
import { type Projects } from "../../src/projects/service.ts";
import { TestApp } from "../support/app.ts";
import { FaultyObjects } from "../support/faulty-objects.ts";
import { emptyTables, ingestTables, reindex } from "../support/ingest-tables.ts";
import { aProject } from "../support/projects.ts";

const LOG = pino({ level: "silent" });

describe("while projects are restored after the database was lost", () => {
  test("a project that is made gets another id", async () => {
    await using app = await TestApp.start();
    await emptyTables(app.sql);
    const demo = await whileRestored(app, async (projects) => {
      return await projects.create({ name: "demo", platform: "ios" });
    });
    expect(demo.id).not.toBe(app.project.id);
    expect(await idsAndKeys(app)).toEqual([
      [app.project.id, app.project.projectKey],
      [demo.id, demo.projectKey],
    ]);
    await expectRebuilt(app);
    const session = await app.start({ projectKey: app.project.projectKey });
    expect(session.status).toBe(200);
  });

  test("one that is made with the id or the key of a restored one is refused at once", async () => {
    await using app = await TestApp.start();
    const { id, projectKey } = app.project;
    for (const taken of [
      { id, key: "another" },
      { id: 77, key: projectKey },
    ]) {
      await emptyTables(app.sql);
      const creating = whileRestored(app, async (projects) => {
        return await projects.create({ name: "late", platform: "ios", ...taken });
      });
      expect(await creating.catch((error: unknown) => error)).toBeInstanceOf(UsageError);
      expect(await idsAndKeys(app)).toEqual([[id, projectKey]]);
      await expectRebuilt(app);
    }
  });

  test("a change of one that gave way does not reach the one that it gave way to", async () => {
    await using app = await TestApp.start();
    await emptyTables(app.sql);
    const demo = await aProject(app);
    expect(demo.id).toBe(app.project.id);
    const changing = whileRestored(app, async (projects) => {
      return await projects.update(demo.id, { active: false });
    });
    expect(await changing.catch((error: unknown) => error)).toBeInstanceOf(UsageError);
    expect(await idsAndKeys(app)).toEqual([[app.project.id, app.project.projectKey]]);
    expect((await app.start()).status).toBe(200);
    await expectRebuilt(app);
  });
});

test("a change counts although the clock has gone back since the last one", async () => {
  await using app = await TestApp.start();
  const { config, sql, objects } = app;
  await sql`update projects set changed_at = now() + interval '1 hour'`;
  const { projects, commitLog } = buildWrite({ config, sql, objects, log: LOG });
  await projects.update(app.project.id, { sampleRate: 40 });
  await commitLog.flush();
  expect(await projects.list()).toMatchObject([{ sampleRate: 40 }]);
});

describe.each(["older", "younger"] as const)(
  "of two projects that come at once the %s first",
  (first) => {
    test.each([
      ["id", { id: 5, project_key: "of the younger" }],
      ["key", { id: 6, project_key: "of the older" }],
    ])("the older one owns the %s", async (_what, same) => {
      await using app = await TestApp.start();
      const older = record({ id: 5, project_key: "of the older" }, 1000);
      const younger = record(same, 0);
      const [one, two] = first === "older" ? [older, younger] : [younger, older];
      const [merged, meanwhile] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
      const merging = app.sql.begin(async (transaction) => {
        await mergeProject(transaction, one);
        merged.resolve();
        await meanwhile.promise;
      });
      await merged.promise;
      const second = app.sql.begin(async (transaction) => await mergeProject(transaction, two));
      await Bun.sleep(50);
      meanwhile.resolve();
      await Promise.all([merging, second]);
      expect((await idsAndKeys(app)).slice(1)).toEqual([[5, "of the older"]]);
    });
  },
);

/** Does it, and restores what the store has after it has looked and before it has stored anything. */
async function whileRestored<T>(app: TestApp, work: (projects: Projects) => Promise<T>) {
  const objects = new FaultyObjects();
  objects.next.push(async (_put, store) => {
    await reindex(app);
    await store();
  });
  const { config, sql } = app;
  const wrapped = objects.wrap(app.objects);
  const { projects, commitLog } = buildWrite({ config, sql, objects: wrapped, log: LOG });
  try {
    return await work(projects);
  } finally {
    await commitLog.flush();
  }
}

/** From nothing the store says the same again. */
async function expectRebuilt({ sql, objects }: TestApp): Promise<void> {
  const { projects } = await ingestTables(sql);
  await emptyTables(sql);
  await reindex({ sql, objects });
  expect((await ingestTables(sql)).projects).toEqual(projects);
}

async function idsAndKeys({ sql }: TestApp): Promise<[number, string][]> {
  const rows = await sql<{ id: number; key: string }[]>`
    select id, project_key as key from projects order by id`;
  return rows.map(({ id, key }) => [id, key]);
}

function record(same: { id: number; project_key: string }, ageMs: number): ProjectRecord {
  const at = new Date(Date.now() - ageMs).toISOString();
  const row = { name: "racing", platform: "ios", active: true, sample_rate: 100 };
  return { ...row, ...same, created_at: at, changed_at: at };
}
