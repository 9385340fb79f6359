import { rm } from "node:fs/promises";
import { join } from "node:path";

import { expect, setDefaultTimeout, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { runCommand } from "../support/command.ts";
import { flipped, gone, harm } from "../support/damage.ts";
import { eventually } from "../support/eventually.ts";
import { ingestTables } from "../support/ingest-tables.ts";
import { segmentId } from "../support/made-segment.ts";
import { ServerProcess, envOf } from "../support/server-process.ts";
import { UpdateApi } from "../support/updates.ts";
import {
  batch,
  lostImage,
  lostOf,
  missingSegment,
  sendBatches,
  sendImage,
} from "../support/verified.ts";
import { MAIN } from "../support/program.ts";

// The first run on a machine may install the S3 server.
setDefaultTimeout(120_000);

const SMALL = { env: { COMMIT_BYTES: String(128 * 1024) } };
const LARGE = "x".repeat(300_000);
const NONE = { segments: 0, archives: 0, sessions: 0, batches: 0, images: 0, builds: 0 };

test("a whole store ends with 0 and the numbers of what was checked", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  await sendBatches(app, session, 0, 1);
  await (await UpdateApi.of(app)).published();
  const text = await runCommand(["verify"], envOf(app));
  expect(text).toEqual({
    code: 0,
    out: [
      "checked: 4 segments, 0 archives, 2 batches, 0 images, 1 builds",
      "missing: 0 segments, 0 archives, 0 sessions, 0 batches, 0 images, 0 builds",
      "damaged: 0 segments, 0 archives, 0 sessions, 0 batches, 0 images, 0 builds",
      "",
    ].join("\n"),
    err: "",
  });
  const json = await runCommand(
    ["verify", "--quick", "--repair", "--project", "1", "--json"],
    envOf(app),
  );
  expect(json.code).toBe(0);
  expect(JSON.parse(json.out)).toEqual({
    project: 1,
    quick: true,
    repair: true,
    problems: [],
    takenOut: [],
    counts: {
      checked: { segments: 2, archives: 0, batches: 2, images: 0, builds: 0 },
      missing: NONE,
      damaged: NONE,
      takenOut: NONE,
    },
  });
});

test("what is lost ends it with 1 and is named; --repair takes out what is gone, and says what", async () => {
  await using app = await TestApp.start(SMALL);
  const session = await app.aSession();
  const [lost = "", bad = ""] = await sendBatches(app, session, 0, 1, 2);
  const [chunk = "", ...others] = await sendImage(app, session, "shot", LARGE);
  const api = await UpdateApi.of(app);
  const build = await api.published();
  const [row] = await app.sql<{ key: string }[]>`
    update builds set name = e'\\x1b[31mapp.apk' returning 'builds/' || object_id as key`;
  for (const key of [lost, chunk, row?.key ?? ""]) await harm(app.objects, key, gone);
  await harm(app.objects, bad, flipped(300));

  const text = await runCommand(["verify"], envOf(app));
  expect(text.code).toBe(1);
  expect(text.out.split("\n").slice(1, 3)).toEqual([
    "missing: 2 segments, 0 archives, 1 sessions, 1 batches, 1 images, 1 builds",
    "damaged: 1 segments, 0 archives, 1 sessions, 1 batches, 0 images, 0 builds",
  ]);
  const lines = text.err.split("\n");
  expect(lines).toContain(`${lost}: the object is gone`);
  expect(lines).toContain(`${bad}: 1 of 1 records are not what was written`);
  expect(lines).toContain(
    `1 batches and 1 images of session ${session.sessionID}, project 1: missing`,
  );
  expect(text.err).toContain(`build ${build.Id}, "\\u001b[31mapp.apk" of version`);
  expect(lines.at(-2)).toBe("floodgate: something is missing or damaged");

  const json = await runCommand(["verify", "--repair", "--json"], envOf(app));
  expect(json.code).toBe(1);
  const said = JSON.parse(json.out);
  const missing = [
    missingSegment(lost),
    missingSegment(chunk),
    lostOf(session, "missing", { batches: 1, images: 1 }),
    lostImage("shot", "missing", LARGE),
    expect.objectContaining({ what: "build", id: build.Id, state: "missing", key: row?.key }),
  ];
  expect(said.takenOut).toHaveLength(missing.length);
  expect(said.takenOut).toEqual(expect.arrayContaining(missing));
  expect(said.problems).toHaveLength(missing.length + 2);
  expect(said.problems).toEqual(expect.arrayContaining(missing));
  const counts = { segments: 2, archives: 0, sessions: 1, batches: 1, images: 1, builds: 1 };
  expect(said.counts).toEqual({
    checked: { segments: others.length + 6, archives: 0, batches: 3, images: 1, builds: 1 },
    missing: counts,
    damaged: { ...NONE, segments: 1, sessions: 1, batches: 1 },
    takenOut: counts,
  });

  const again = await runCommand(["verify", "--repair"], envOf(app));
  expect(again.code).toBe(1);
  expect(again.out.split("\n").slice(1)).toEqual([
    "missing: 0 segments, 0 archives, 0 sessions, 0 batches, 0 images, 0 builds",
    "damaged: 1 segments, 0 archives, 1 sessions, 1 batches, 0 images, 0 builds",
    "taken out: 0 segments, 0 archives, 0 sessions, 0 batches, 0 images, 0 builds",
    "",
  ]);
  await sendBatches(app, session, 0, 1);
  expect(await app.batches(session)).toEqual([2, 0, 1].map(batch));
});

test("a terminal gets a hundred lines, and --json everything", async () => {
  await using app = await TestApp.start();
  const ids = Array.from({ length: 250 }, (_, nth) => segmentId(10_000 + nth));
  await app.sql`insert into segments (id, bytes, records) select unnest(${ids}::uuid[]), 1, 1`;
  const text = await runCommand(["verify", "--quick"], envOf(app));
  expect(text.err.split("\n")).toHaveLength(103);
  expect(text.err).toContain("and 150 more, which --json prints as well\n");
  const json = await runCommand(["verify", "--quick", "--json"], envOf(app));
  expect(JSON.parse(json.out).problems).toHaveLength(250);
});

test.each([
  [["--project", "999"], "floodgate: there is no project 999\n"],
  [["--project", "0"], "not a whole number from 1 to 2147483647"],
  [["--project", "x", "--json"], "not a whole number from 1 to 2147483647"],
])("%p ends with 2", async (args, message) => {
  await using app = await TestApp.start();
  const { code, err, out } = await runCommand(["verify", ...args], envOf(app));
  expect({ code, out }).toEqual({ code: 2, out: "" });
  expect(err).toContain(message);
});

test("without the folder of all objects it ends with 75, and changes and creates nothing", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  await sendBatches(app, session, 0);
  const before = await ingestTables(app.sql);
  const folder = join(app.config.dataDir, "objects");
  await rm(folder, { recursive: true });
  for (const args of [["--repair"], ["--quick", "--repair", "--json"]]) {
    const { code, err, out } = await runCommand(["verify", ...args], envOf(app));
    expect({ code, out }).toEqual({ code: 75, out: "" });
    expect(err).toContain(`the object store is away: files: ${folder} is gone`);
  }
  expect(await ingestTables(app.sql)).toEqual(before);
  expect(await Bun.file(join(folder, ".tmp")).exists()).toBe(false);
});

test("a store that does not answer ends it with 75", async () => {
  await using app = await TestApp.start({ store: "s3" });
  const env = { ...envOf(app), S3_ENDPOINT: "http://127.0.0.1:1" };
  const { code, err } = await runCommand(["verify", "--quick", "--repair"], env);
  expect(code).toBe(75);
  expect(err).toContain("the object store is away");
});

test("an empty folder in place of the store's is no reason to take anything out", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  await sendBatches(app, session, 0);
  const before = await ingestTables(app.sql);
  const folder = join(app.config.dataDir, "objects");
  await rm(folder, { recursive: true });
  await Bun.write(join(folder, ".tmp", "kept"), "");
  const { code, err, out } = await runCommand(["verify", "--repair", "--json"], envOf(app));
  expect(code).toBe(1);
  expect(err).toContain("nothing is taken out, because the store has none of the objects");
  expect(JSON.parse(out)).toMatchObject({
    takenOut: [],
    error: expect.stringContaining("nothing is taken out"),
  });
  expect(await ingestTables(app.sql)).toEqual(before);
});

test("killed in the middle of a repair, it is finished by the next one", async () => {
  await using app = await TestApp.start(SMALL);
  const session = await app.aSession();
  const [lost = ""] = await sendBatches(app, session, 0, 1, 2);
  const [chunk = ""] = await sendImage(app, session, "shot", LARGE);
  for (const key of [lost, chunk]) await harm(app.objects, key, gone);
  const start = await ingestTables(app.sql);
  await app.sql.begin(async (transaction) => {
    // The repair has taken out the batch when it waits for this lock.
    await transaction`select from image_contents for update`;
    const env = { ...process.env, ...envOf(app) };
    const child = Bun.spawn([process.execPath, MAIN, "verify", "--repair"], {
      env,
      stdio: ["ignore", "ignore", "ignore"],
    });
    await eventually("it waits", async () => {
      const waiting = await app.sql`
        select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`;
      return waiting.length > 0;
    });
    child.kill("SIGKILL");
    await child.exited;
    const waiting = async () =>
      await app.sql`
      select pg_terminate_backend(pid) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`;
    await eventually("its statement has ended", async () => (await waiting()).length === 0);
  });
  const half = await ingestTables(app.sql);
  expect(half.batches).toHaveLength(start.batches.length - 1);
  expect(half.segments).toHaveLength(start.segments.length - 2);
  for (const name of ["contents", "uses", "sessions"] as const)
    expect(half[name]).toEqual(start[name]);
  expect(await app.batches(session)).toEqual([1, 2].map(batch));

  const next = await runCommand(["verify", "--repair", "--json"], envOf(app));
  expect(JSON.parse(next.out).takenOut).toEqual([
    lostOf(session, "missing", { images: 1 }),
    lostImage("shot", "missing", LARGE),
  ]);
  expect((await runCommand(["verify"], envOf(app))).code).toBe(0);
  await sendBatches(app, session, 0);
  expect(await app.batches(session)).toEqual([1, 2, 0].map(batch));
});

test("it runs beside a server and a working process", async () => {
  await using app = await TestApp.start();
  await using worker = await ServerProcess.start(envOf(app), [MAIN, "work"]);
  const session = await app.aSession();
  const sending = sendBatches(app, session, ...Array.from({ length: 40 }, (_, nth) => nth));
  for (const args of [["verify"], ["verify", "--quick", "--repair"]])
    expect(await runCommand(args, envOf(app))).toMatchObject({ code: 0, err: "" });
  await sending;
  expect(await app.batches(session)).toHaveLength(40);
  worker.signal("SIGTERM");
  expect(await worker.exited).toBe(0);
});
