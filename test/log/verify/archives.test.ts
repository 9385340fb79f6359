import { describe, expect, setDefaultTimeout, test } from "bun:test";

import { type Finding } from "../../../src/log/verify/finding.ts";
import { TestApp, type TestSession } from "../../support/app.ts";
import { type Written, archived, dropArchived } from "../../support/archive-objects.ts";
import { readState } from "../../support/archived-state.ts";
import { cut, flipped, gone, harm } from "../../support/damage.ts";
import { failure } from "../../support/failure.ts";
import { aFile, upload } from "../../support/images.ts";
import { reindex, sessionFacts, untilIndexed } from "../../support/ingest-tables.ts";
import { aProject } from "../../support/projects.ts";
import {
  lostImage,
  lostOf,
  sendBatches,
  sendImage,
  takenOut,
  verified,
} from "../../support/verified.ts";

// The first run on a machine may install the S3 server.
setDefaultTimeout(120_000);

const LARGE = "x".repeat(300_000);

/** Two sessions with three batches and one, and an image of both, all of it in archives alone. */
async function archivedApp(app: TestApp) {
  const [session, other] = [await app.aSession(), await app.aSession()];
  await sendBatches(app, session, 0, 1, 2);
  await sendBatches(app, other, 3);
  await sendImage(app, session, "shot", LARGE);
  await upload(app, other, [aFile("shot", LARGE)]);
  await untilIndexed(app);
  await sessionFacts(app.sql);
  const { written } = await archived(app);
  await dropArchived(app);
  const ofKind = (kind: string) => {
    const found = written.find(({ archive }) => archive.kind === kind);
    if (found === undefined) throw new Error(`no archive of ${kind}`);
    return found;
  };
  const [sessions, images, projects] = [ofKind("sessions"), ofKind("images"), ofKind("projects")];
  return { session, other, sessions, images, projects };
}

const lostArchive = (
  { key }: Written,
  state: "missing" | "damaged",
  reason: unknown = "the object is gone",
): Finding => ({ what: "archive", state, key, reason: String(reason) });

function all(session: TestSession, other: TestSession, state: "missing" | "damaged"): Finding[] {
  return [
    lostOf(session, state, { batches: 3, images: 1 }),
    lostOf(other, state, { batches: 1, images: 1 }),
    lostImage("shot", state, LARGE),
  ];
}

describe("archives", () => {
  test("that are whole are counted, and so is what is in them", async () => {
    await using app = await TestApp.start();
    await archivedApp(app);
    for (const quick of [true, false])
      for (const project of [undefined, 1]) {
        const { found, checked } = await verified(app, { quick, project });
        expect(found).toEqual([]);
        expect(checked).toEqual({ segments: 0, archives: 3, batches: 4, images: 1 });
      }
  });

  test("that are gone are named with whom that affects, and taken out by a repair", async () => {
    await using app = await TestApp.start();
    const { session, other, sessions, images, projects } = await archivedApp(app);
    const state = await readState(app);
    for (const { key } of [sessions, images]) await harm(app.objects, key, gone);
    const keys = [sessions, images].toSorted((a, b) => (a.key < b.key ? -1 : 1));
    const expected = [
      ...keys.map((one) => lostArchive(one, "missing")),
      ...all(session, other, "missing"),
    ];
    for (const quick of [true, false])
      for (const project of [undefined, 1])
        expect((await verified(app, { quick, project })).found).toEqual(
          expect.arrayContaining(expected),
        );
    expect((await verified(app)).found).toHaveLength(expected.length);
    const removed = await takenOut(app);
    expect(removed).toEqual(expect.arrayContaining(expected));
    expect(removed).toHaveLength(expected.length);
    expect((await verified(app)).found).toEqual([]);
    const left = await app.sql<{ id: string }[]>`select id from archives`;
    expect(left.map(({ id }) => id)).toEqual([projects.archive.id]);
    expect(await app.sql`select from session_pieces`).toHaveLength(0);
    expect(await app.sql`select from image_contents`).toHaveLength(0);
    // An archive that comes back is taken in again, with the same facts.
    for (const { key, bytes } of [sessions, images]) await app.objects.put(key, bytes);
    expect((await reindex(app)).ofArchives).toMatchObject({ archives: 2, damaged: 0, missing: 0 });
    const again = await readState(app);
    expect({ ...again, facts: [] }).toEqual({ ...state, facts: [] });
    expect((await verified(app)).found).toEqual([]);
  });

  test("that are damaged are read for what is left of them", async () => {
    await using app = await TestApp.start();
    const { session, other, sessions, images } = await archivedApp(app);
    const [first] = sessions.pieces;
    await harm(app.objects, sessions.key, flipped((first?.indexStart ?? 0) - 10));
    const reason: string = expect.any(String);
    const damaged = {
      what: "archive" as const,
      state: "damaged" as const,
      key: sessions.key,
      reason,
    };
    expect((await verified(app)).found).toEqual([
      damaged,
      lostOf(session, "damaged", { batches: 3 }),
    ]);
    expect((await verified(app, { quick: true })).found).toEqual([]);
    expect(await takenOut(app)).toEqual([]);
    // Only the footer, which readers do not need.
    await harm(app.objects, images.key, flipped(-30));
    expect((await verified(app)).found).toContainEqual({ ...damaged, key: images.key });
    expect((await verified(app)).found).toHaveLength(3);
    await harm(app.objects, images.key, flipped(200_000));
    await harm(app.objects, sessions.key, cut(200));
    const found = (await verified(app)).found.filter(({ what }) => what !== "archive");
    expect(found).toEqual(all(session, other, "damaged"));
  });

  test("of another project are not looked at", async () => {
    await using app = await TestApp.start();
    const second = await aProject(app);
    const mine = await app.aSession();
    const theirs = await app.aSession({ projectID: second.projectID });
    await sendBatches(app, mine, 0);
    await sendBatches(app, theirs, 1);
    await sessionFacts(app.sql);
    const { written } = await archived(app);
    for (const { key } of written) await harm(app.objects, key, gone);
    const ofProject = (id: number) =>
      written.filter(({ archive }) => archive.projectId === id).length;
    for (const quick of [true, false]) {
      const { found, checked } = await verified(app, { quick, project: second.id });
      expect(checked.archives).toBe(ofProject(second.id));
      expect(found).toHaveLength(ofProject(second.id) + 1);
      expect(found.at(-1)).toEqual(lostOf(theirs, "missing", { batches: 1, projectId: second.id }));
    }
    const before = await app.sql`select from archives`;
    expect(await takenOut(app, second.id)).toHaveLength(ofProject(second.id) + 1);
    expect(await app.sql`select from archives`).toHaveLength(before.length - ofProject(second.id));
    expect(await app.sql`select from session_pieces`).toHaveLength(1);
  });

  test("stay when the store has nothing that a row names", async () => {
    await using app = await TestApp.start();
    const { sessions, images, projects } = await archivedApp(app);
    for (const { key } of [sessions, images, projects]) await harm(app.objects, key, gone);
    await verified(app);
    expect(String(await failure(takenOut(app)))).toContain("nothing is taken out");
    expect(await app.sql`select from archives`).toHaveLength(3);
    expect(await app.sql`select from session_pieces`).toHaveLength(2);
  });
});
