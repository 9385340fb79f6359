import { describe, expect, test } from "bun:test";
import { pino } from "pino";

import { buildWrite } from "../../../src/app.ts";
import { ReadFacts } from "../../../src/ingest/read-facts.ts";
import { Reindex } from "../../../src/log/recovery/reindex.ts";
import { openDatabase } from "../../../src/platform/database/database.ts";
import { TestApp } from "../../support/app.ts";
import { aBatch } from "../../support/batches.ts";
import { FaultyObjects } from "../../support/faulty-objects.ts";
import { aFile, imageOf, imagesOf, textOf, upload } from "../../support/images.ts";
import { emptyTables, ingestTables, reindex } from "../../support/ingest-tables.ts";
import { aProject } from "../../support/projects.ts";
import { append, serverBeside } from "../../support/requests.ts";

const LOG = pino({ level: "silent" });
const PIXELS = new Uint8Array([1, 2, 3]);

/* A server that goes on while its database is lost, and a reindex after that. */

test("of two segments with one batch the first has it, whatever is there when they are restored", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  for (const salt of ["a", "b"]) await app.append(session, aBatch({ salt }));
  const before = await ingestTables(app.sql);
  await emptyTables(app.sql);
  // The running server knows the session, and takes the batch as new.
  expect((await app.append(session, aBatch({ salt: "a" }))).status).toBe(200);
  expect((await app.append(session, aBatch({ salt: "b" }))).status).toBe(200);
  await reindex(app);
  const { batches, sessions, projects } = await ingestTables(app.sql);
  expect({ batches, sessions, projects }).toEqual({
    batches: before.batches,
    sessions: before.sessions,
    projects: before.projects,
  });
});

test("batches that come in while it runs are stored once, also when it is the first to index them", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  const batches = Array.from({ length: 150 }, (_, i) => aBatch({ salt: `${i}`, bytes: 1000 }));
  for (const batch of batches.slice(0, 30)) await app.append(session, batch);
  await emptyTables(app.sql);
  const done = Promise.withResolvers<void>();
  const reindexing = (async () => {
    let segments = 0;
    const end = done.promise.then(() => true);
    do ({ segments } = await reindex(app));
    while (segments > 0 || !(await Promise.race([end, Bun.sleep(1).then(() => false)])));
  })();
  const statuses = await Promise.all(
    batches.slice(30).map(async (batch, i) => {
      await Bun.sleep(i * 4);
      return (await app.append(session, batch)).status;
    }),
  );
  done.resolve();
  await reindexing;
  expect(new Set(statuses)).toEqual(new Set([200]));
  const stored = (await app.batches(session)).map((batch) => Buffer.from(batch).toString("latin1"));
  expect(stored.toSorted()).toEqual(
    batches.map((batch) => Buffer.from(batch).toString("latin1")).toSorted(),
  );
});

test("it goes on when its connections to PostgreSQL are lost", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  for (let i = 0; i < 30; i++) await app.append(session, aBatch({ salt: `${i}` }));
  const before = await ingestTables(app.sql);
  await emptyTables(app.sql);
  const sql = openDatabase(app.databaseUrl, { connections: 2 });
  const objects = new FaultyObjects();
  let reads = 0;
  const cut = async () => {
    await app.sql`
      select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and datname = current_database()`;
  };
  let cutting: Promise<void> | undefined;
  objects.beforeRead = () => {
    if (++reads === 20) cutting = cut();
  };
  const { segments } = await new Reindex({
    sql,
    objects: objects.wrap(app.objects),
    log: LOG,
    facts: new ReadFacts(sql),
  }).run();
  await cutting;
  await sql.end({ timeout: 1 });
  expect(cutting).toBeDefined();
  expect(segments).toBe(before.segments.length);
  expect(await ingestTables(app.sql)).toEqual(before);
});

test("a session whose batches came before its row was restored gets its own row", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession({ userDevice: "iPhone15,2" });
  await upload(app, session, [aFile("kept", "first")]);
  const before = await ingestTables(app.sql);
  await emptyTables(app.sql);
  // A server that was started since knows nothing of it, and makes a row of what the token says.
  await using fresh = await serverBeside(app);
  expect((await append(fresh, session, aBatch())).status).toBe(200);
  const [stub] = await app.sql<{ projectId: number | null }[]>`
    select project_id as "projectId" from sessions`;
  expect(stub).toEqual({ projectId: null });
  await reindex(app);
  expect((await ingestTables(app.sql)).sessions).toEqual(before.sessions);
  // And the store, which now has both records, says the same from the beginning.
  await emptyTables(app.sql);
  await reindex(app);
  expect((await ingestTables(app.sql)).sessions).toEqual(before.sessions);
});

describe("of a session that is not known while the database is lost", () => {
  test("images belong to its project once it is restored, and when the store is read anew", async () => {
    await using app = await TestApp.start();
    const session = await app.aSession();
    await upload(app, session, [aFile("before", "as it was")]);
    await emptyTables(app.sql);
    await using fresh = await serverBeside(app);
    const send = async (name: string) => {
      const body = new FormData();
      body.set("file", new File([PIXELS], name));
      const headers = { authorization: `Bearer ${session.token}` };
      const init = { method: "POST", headers, body };
      return (await fetch(`${fresh.url}/v1/mobile/images`, init)).status;
    };
    expect([await send("meanwhile"), await send("before")]).toEqual([200, 200]);
    expect(await imageOf(app, "meanwhile")).toBeUndefined();
    await reindex(app);
    expect(await send("after")).toBe(200);
    const names = ["after", "before", "before", "meanwhile"];
    expect((await imagesOf(app, session)).toSorted()).toEqual(names);
    expect(Buffer.from((await imageOf(app, "before")) ?? []).toString()).toBe("as it was");
    const query = `?session=${session.sessionID}`;
    for (const name of ["before", "meanwhile", "after"])
      expect(await imageOf(app, name, app.project.id, query)).toEqual(PIXELS);
    const { contents, uses } = await ingestTables(app.sql);
    expect(contents.map(({ row }) => [row.project_id, row.name, row.uses])).toEqual(
      names.map((name) => [app.project.id, name, 1]),
    );
    expect(uses.map(({ row }) => row.project_id)).toEqual(names.map(() => app.project.id));
    await emptyTables(app.sql);
    await reindex(app);
    expect((await ingestTables(app.sql)).contents).toEqual(contents);
    expect((await ingestTables(app.sql)).uses).toEqual(uses);
  });

  test("that is not to be recorded nothing is stored any more, a second after it is restored", async () => {
    await using app = await TestApp.start();
    const session = await app.aSession({ doNotRecord: true });
    await emptyTables(app.sql);
    await using fresh = await serverBeside(app);
    expect((await append(fresh, session, aBatch({ salt: "meanwhile" }))).status).toBe(200);
    await reindex(app);
    await Bun.sleep(1100);
    const before = await ingestTables(app.sql);
    expect((await append(fresh, session, aBatch({ salt: "after" }))).status).toBe(200);
    expect(await ingestTables(app.sql)).toEqual(before);
  });
});

test("columns that a newer schema has beside an older process get their defaults, also when rows are restored", async () => {
  await using app = await TestApp.start();
  for (const table of ["projects", "sessions", "images", "image_contents", "image_uses"])
    await app.sql`alter table ${app.sql(table)} add column newer integer not null default 7`;
  const session = await app.aSession();
  expect((await upload(app, session, [aFile("image")])).status).toBe(200);
  const changed = await aProject(app, { sampleRate: 50 });
  await app.sql`update projects set newer = 8 where id = ${changed.id}`;
  const { config, sql, objects } = app;
  const { projects, commitLog } = buildWrite({ config, sql, objects, log: LOG });
  await projects.update(changed.id, { sampleRate: 60 });
  await commitLog.flush();
  const before = await ingestTables(app.sql);
  expect(before.projects.map(({ row }) => row.newer)).toEqual([7, 8]);
  await app.sql`update projects set newer = 7`;
  const defaults = await ingestTables(app.sql);
  await emptyTables(app.sql);
  await reindex(app);
  expect(await ingestTables(app.sql)).toEqual(defaults);
});

test("an image that was stored again while the database was lost is the first one again, and used twice", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  await upload(app, session, [aFile("name", "first")]);
  const [before] = (await ingestTables(app.sql)).contents;
  await emptyTables(app.sql);
  for (const content of ["second", "first"])
    await upload(app, session, [aFile("name", content)], { path: "/v1/mobile/images", fields: [] });
  expect(Buffer.from((await imageOf(app, "name")) ?? []).toString()).toBe("second");
  await reindex(app);
  expect(Buffer.from((await imageOf(app, "name")) ?? []).toString()).toBe("first");
  expect(await textOf(app, session, "name")).toBe("first");
  const { contents, uses } = await ingestTables(app.sql);
  const [first] = contents.filter(({ row }) => row.sha256 === before?.["row"].sha256);
  expect(first?.["row"]).toEqual({ ...before?.["row"], uses: 2 });
  expect(contents).toHaveLength(2);
  await emptyTables(app.sql);
  await reindex(app);
  expect((await ingestTables(app.sql)).contents).toEqual(contents);
  expect((await ingestTables(app.sql)).uses).toEqual(uses);
});

describe("projects that were made while the database was lost", () => {
  test("with the id of a stored one give way to it, with its changes, however often it is done", async () => {
    await using app = await TestApp.start();
    const second = await aProject(app, { sampleRate: 70, active: false });
    const before = (await ingestTables(app.sql)).projects;
    await emptyTables(app.sql);
    const demo = await aProject(app, { sampleRate: 30 });
    expect(demo.id).toBe(app.project.id);
    const done = await reindex(app);
    expect(done.contested).toEqual([demo.id]);
    expect((await ingestTables(app.sql)).projects).toEqual(before);
    await emptyTables(app.sql);
    await reindex(app);
    expect((await ingestTables(app.sql)).projects).toEqual(before);
    expect(second.id).not.toBe(demo.id);
  });

  test("with the key of a stored one give way, too, and others stay", async () => {
    await using app = await TestApp.start();
    const keyed = await aProject(app, { id: 7, key: "the-key-of-an-app" });
    const before = (await ingestTables(app.sql)).projects;
    await emptyTables(app.sql);
    const again = await aProject(app, { key: keyed.projectKey, id: 3 });
    const other = await aProject(app, { id: 5 });
    expect((await reindex(app)).contested).toEqual([keyed.id]);
    const { projects } = await ingestTables(app.sql);
    expect(projects.filter(({ row }) => row.id !== other.id)).toEqual(before);
    expect(projects.map(({ row }) => row.id)).toEqual([app.project.id, other.id, keyed.id]);
    expect(again.id).toBe(3);
    await emptyTables(app.sql);
    await reindex(app);
    expect((await ingestTables(app.sql)).projects).toEqual(projects);
  });

  test("a change made since is not undone by one that is restored after it", async () => {
    await using app = await TestApp.start();
    const { config, sql, objects, project } = app;
    const { projects, commitLog } = buildWrite({ config, sql, objects, log: LOG });
    await projects.update(project.id, { sampleRate: 10 });
    await sql`delete from segments where id = (select id from segments order by id desc limit 1)`;
    await projects.update(project.id, { sampleRate: 20 });
    await commitLog.flush();
    const before = (await ingestTables(sql)).projects;
    expect((await reindex(app)).segments).toBe(1);
    expect((await ingestTables(sql)).projects).toEqual(before);
  });
});
