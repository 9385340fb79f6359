import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { zstdDecompressSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";

import { segmentKey } from "../../src/log/segment.ts";
import { type ObjectStore } from "../../src/platform/objects/objects.ts";
import { S3Objects } from "../../src/platform/objects/s3-objects.ts";
import { TestApp, type TestSession } from "../support/app.ts";
import { concat, encodeBatch, encodeMessage } from "../support/batches.ts";
import { runCommand } from "../support/command.ts";
import { gone, harm } from "../support/damage.ts";
import { RECORDED_CANVAS, aFile, frameRecord, sendRecorded, upload } from "../support/images.ts";
import { batchesIn, beginAt, replayOf } from "../support/replays.ts";
import { envOf } from "../support/server-process.ts";
import { trackerRequests } from "../support/tracker-requests.ts";
import { encodeWebBatch, encodeWebMessage } from "../support/web-batches.ts";

const T0 = 1_760_000_000_000;
const CANVAS = "1796052224645_42.webp.frames";
const TIMEOUT_MS = 60_000;

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "floodgate-export-"));
});
afterAll(async () => await rm(folder, { recursive: true }));

/** Runs the command on the database and store of a test's server. */
async function run(app: TestApp, args: string[]) {
  return await runCommand(["export-replay", ...args], envOf(app));
}

function unpacked(bytes: Uint8Array): Uint8Array {
  return Uint8Array.from(zstdDecompressSync(bytes));
}

async function contentOf(objects: ObjectStore, key: string): Promise<Uint8Array> {
  for await (const object of objects.list(key))
    if (object.key === key) return unpacked(await objects.read(key, 0, object.bytes));
  throw new Error(`${key} is not there`);
}

/** A recorded session, which sent two DOM files, a log and a canvas element. */
async function aRecordedSession(app: TestApp): Promise<TestSession> {
  const session = await app.aSession();
  const requests = trackerRequests("v2");
  for (const { path, headers, body } of requests) await app.append(session, body, path, headers);
  for (const form of RECORDED_CANVAS) await sendRecorded(app, session, form);
  const last = batchesIn(requests).at(-1)?.at ?? 0;
  await beginAt(app, session, last - 15_001);
  return session;
}

function aPageBatch(nth: number): Uint8Array {
  const message = encodeWebMessage(14, nth, "x".repeat(90_000));
  return encodeWebBatch([message], { timestamp: T0 + nth });
}

const FILES = ["dom.mobs", "dom.mobe", "devtools.mob", CANVAS];

function keysOf({ sessionID }: TestSession): string[] {
  return FILES.map((name) => `${sessionID}/${name}${name === CANVAS ? ".zst" : ""}`);
}

describe("to a folder", () => {
  const app = TestApp.forTests();

  test(
    "the files of a web session are those that the server composes, in zstd",
    async () => {
      const session = await aRecordedSession(app);
      const out = join(folder, "new", "folder");
      const { code, out: text } = await run(app, ["--session", session.sessionID, "--out", out]);
      const lines: string[] = [];
      for (const [nth, key] of keysOf(session).entries()) {
        const expected = (await replayOf(app, session, FILES[nth] ?? "")) ?? new Uint8Array();
        expect(unpacked(await readFile(join(out, key)))).toEqual(expected);
        lines.push(`${key}\t${expected.length} bytes\n`);
      }
      expect([code, text]).toEqual([0, lines.join("")]);
      expect((await readdir(join(out, session.sessionID))).length).toBe(FILES.length);
    },
    TIMEOUT_MS,
  );

  test(
    "a phone's files are there, and a second run has what came meanwhile",
    async () => {
      const session = await app.aSession();
      const click = (nth: number) =>
        encodeBatch([encodeMessage(100, T0, "OK", nth, 1)], { firstIndex: nth });
      await app.append(session, click(0));
      const frame = frameRecord(T0, Buffer.from("abc"));
      await upload(app, session, [aFile(`1-${T0}.frames`, frame)], { path: "/v1/mobile/images" });
      const args = ["--session", session.sessionID, "--out", folder, "--json"];
      const files = ["dom.mobs", "replay.frames.zst"].map((name) => `${session.sessionID}/${name}`);
      // As a run that was killed leaves it.
      await mkdir(join(folder, session.sessionID));
      await writeFile(join(folder, session.sessionID, ".dom.mobs.1234.part"), "half a file");
      for (const bytes of [29, 50]) {
        const { out } = await run(app, args);
        expect(JSON.parse(out)).toEqual({
          files: [
            { key: files[0], bytes },
            { key: files[1], bytes: 15 },
          ],
        });
        const expected = await replayOf(app, session, "dom.mobs");
        const written = await readFile(join(folder, files[0] ?? ""));
        expect(unpacked(written)).toEqual(expected ?? new Uint8Array());
        await app.append(session, click(1));
      }
      expect((await readdir(join(folder, session.sessionID))).toSorted()).toEqual([
        "dom.mobs",
        "replay.frames.zst",
      ]);
    },
    TIMEOUT_MS,
  );

  test(
    "a lost part ends the command, and leaves no half of a file, unless it is to be left out",
    async () => {
      const session = await app.aSession();
      for (const nth of [1, 2]) await app.append(session, aPageBatch(nth), "/v1/web/i");
      const rows = await app.sql<{ id: string }[]>`
        select segment_id as id from batches where session_id = ${session.sessionID} order by segment_id`;
      const key = segmentKey(rows[1]?.id ?? "");
      await harm(app.objects, key, gone);
      const out = join(folder, "lost");
      const args = ["--session", session.sessionID, "--out", out];
      expect(await run(app, args)).toEqual({
        code: 1,
        out: "",
        err: `floodgate: ${session.sessionID}/dom.mobs: ${key} is missing; --skip-missing leaves it out\n`,
      });
      expect(await readdir(join(out, session.sessionID))).toEqual([]);
      expect((await run(app, [...args, "--skip-missing"])).code).toBe(0);
      const written = await readFile(join(out, session.sessionID, "dom.mobs"));
      expect(unpacked(written)).toEqual(
        concat([Uint8Array.fromHex("fffffffffffffffe"), aPageBatch(1)]),
      );
    },
    TIMEOUT_MS,
  );

  test(
    "a session without data has nothing to replay",
    async () => {
      const { sessionID } = await app.aSession();
      expect(await run(app, ["--session", sessionID, "--out", folder])).toEqual({
        code: 0,
        out: `session ${sessionID} has nothing to replay\n`,
        err: "",
      });
    },
    TIMEOUT_MS,
  );

  test(
    "bad usage ends with 2 and one line",
    async () => {
      const file = join(folder, "a file");
      await writeFile(file, "");
      const { sessionID } = await app.aSession();
      for (const [session, out, said] of [
        ["1", folder, "there is no session 1"],
        ["x", folder, "not the id of a session"],
        ["9223372036854775808", folder, "not the id of a session"],
        [sessionID, file, `"${file}" is not a folder, or cannot be made one: EEXIST`],
        [sessionID, join(file, "below"), "is not a folder, or cannot be made one: ENOTDIR"],
        [sessionID, "", `"" is neither a folder nor s3://bucket/prefix`],
        [sessionID, "s3://", `"s3://" is neither a folder nor s3://bucket/prefix`],
        [sessionID, "s3:///x", `"s3:///x" is neither a folder nor s3://bucket/prefix`],
        [sessionID, "gs://bucket/x", `"gs://bucket/x" is neither`],
      ] as const) {
        const { code, err } = await run(app, ["--session", session, "--out", out]);
        expect([out, code, err]).toEqual([out, 2, expect.stringContaining(said)]);
        expect(err.trimEnd().split("\n")).toHaveLength(1);
      }
      for (const args of [[], ["--session", sessionID], ["--out", folder]])
        expect((await run(app, args)).code).toBe(2);
    },
    TIMEOUT_MS,
  );
});

describe("to a bucket", () => {
  const app = TestApp.forTests({ store: "s3" });

  test(
    "files are put under the prefix, again and again",
    async () => {
      const session = await aRecordedSession(app);
      const { s3 } = app.config;
      if (s3 === undefined) throw new Error("the store is not S3");
      await using objects = new S3Objects({ ...s3, prefix: "replays/web" });
      for (const out of [`s3://${s3.bucket}/replays/web`, `s3://${s3.bucket}/replays/web/`]) {
        const { code, err } = await run(app, ["--session", session.sessionID, "--out", out]);
        expect([code, err]).toEqual([0, ""]);
        for (const [nth, key] of keysOf(session).entries())
          expect(await contentOf(objects, key)).toEqual(
            (await replayOf(app, session, FILES[nth] ?? "")) ?? new Uint8Array(),
          );
        await app.append(session, encodeWebBatch([], { timestamp: 1 }), "/v1/web/i");
      }
    },
    TIMEOUT_MS,
  );

  test(
    "a bucket that does not exist is named",
    async () => {
      const session = await aRecordedSession(app);
      const out = "s3://no-such-bucket/x";
      const { code, err } = await run(app, ["--session", session.sessionID, "--out", out]);
      expect(code).toBe(1);
      expect(err).toContain("NoSuchBucket");
    },
    TIMEOUT_MS,
  );
});
