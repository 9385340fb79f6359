import { afterAll, beforeAll, describe, expect, test } from "bun:test";

import { segmentKey } from "../../src/log/segment.ts";
import { refusalOf } from "../support/answers.ts";
import { KEYED, TestApp, type TestSession } from "../support/app.ts";
import { concat, encodeBatch, encodeMessage } from "../support/batches.ts";
import { type Harm, flipped, gone, harm, keptLog } from "../support/damage.ts";
import { failure } from "../support/failure.ts";
import { FaultyObjects } from "../support/faulty-objects.ts";
import { aFile, frameRecord, upload } from "../support/images.ts";
import { Random } from "../support/random.ts";
import { WEB_HEAD, beginAt } from "../support/replays.ts";
import { type ServerBeside, serverBeside } from "../support/requests.ts";
import { encodeWebBatch, encodeWebMessage } from "../support/web-batches.ts";

const T0 = 1_760_000_000_000;
const NOISE = new Random(5).bytes(300_000).toHex();

describe.each(["files", "s3"] as const)("with objects in %s, of bytes that are", (store) => {
  let app: TestApp;
  let server: ServerBeside;
  const faults = new FaultyObjects();
  const kept = keptLog();

  beforeAll(async () => {
    app = await TestApp.start({ store });
    server = await serverBeside(app, { log: kept.log, wrapObjects: faults.wrap });
  });

  afterAll(async () => {
    await server[Symbol.asyncDispose]();
    await app[Symbol.asyncDispose]();
  });

  async function ask({ sessionID }: TestSession, name: string, headers = {}): Promise<Response> {
    const url = `${server.url}/v1/sessions/${sessionID}/replay/${name}`;
    return await fetch(url, { headers: { ...KEYED, "accept-encoding": "identity", ...headers } });
  }

  /** Starts a session with batches each in a segment of its own, and harms one of them. */
  async function harmed(batches: Uint8Array[], nth: number, how: Harm): Promise<TestSession> {
    const session = await app.aSession();
    await beginAt(app, session, T0);
    const path = batches[0]?.[0] === 81 ? "/v1/web/i" : "/v1/mobile/i";
    for (const batch of batches) expect((await app.append(session, batch, path)).status).toBe(200);
    const rows = await app.sql<{ id: string }[]>`
      select segment_id as id from batches where session_id = ${session.sessionID}
      order by segment_id, "offset"`;
    await harm(app.objects, segmentKey(rows[nth]?.id ?? ""), how);
    return session;
  }

  const pages = [0, 1, 2].map((nth) =>
    encodeWebBatch([encodeWebMessage(14, nth, NOISE)], { timestamp: T0 + nth }),
  );
  const phones = [0, 1, 2].map((nth) =>
    encodeBatch([encodeMessage(103, T0 + nth, "info", NOISE)], {
      firstIndex: nth,
      timestamp: T0 + nth,
    }),
  );

  describe.each<[string, Harm, string]>([
    ["gone", gone, "the file is gone from the store"],
    ["damaged", flipped(60), "the file is damaged in the store"],
  ])("%s", (_what, how, text) => {
    test("a file is 410 at its beginning, and breaks off later, but for what is whole", async () => {
      const first = await harmed(pages, 0, how);
      expect(await refusalOf(ask(first, "dom.mobs"))).toEqual([410, text]);
      const last = await harmed(pages, 2, how);
      for (const coding of ["identity", "gzip", "zstd"]) {
        const answer = await ask(last, "dom.mobs", { "accept-encoding": coding });
        expect(answer.status).toBe(200);
        expect(await failure(answer.bytes())).toBeInstanceOf(Error);
      }
      const part = await ask(last, "dom.mobs", { range: "bytes=0-999999" });
      expect(part.status).toBe(206);
      const whole = concat([WEB_HEAD, ...pages]);
      expect(Buffer.compare(await part.bytes(), whole.subarray(0, 1_000_000))).toBe(0);
      expect(await refusalOf(ask(last, "dom.mobs", { range: "bytes=-1000" }))).toEqual([410, text]);
    });

    test("skipMissing leaves them out, without a tag or ranges", async () => {
      const session = await harmed(pages, 1, how);
      const headers = { range: "bytes=0-9" };
      const answer = await ask(session, "dom.mobs?skipMissing=true", headers);
      expect([answer.status, answer.headers.get("etag")]).toEqual([200, null]);
      const rest = concat([WEB_HEAD, ...pages.filter((_, nth) => nth !== 1)]);
      expect(Buffer.compare(await answer.bytes(), rest)).toBe(0);
    });

    test("a phone's messages are 410, and without the lost ones with skipMissing", async () => {
      const session = await harmed(phones, 1, how);
      expect(await refusalOf(ask(session, "dom.mobs"))).toEqual([410, text]);
      const answer = await ask(session, "dom.mobs?skipMissing=true");
      const bytes = Buffer.from(await answer.bytes());
      const message = encodeMessage(103, T0, "info", NOISE).length;
      expect(bytes.length).toBe(8 + 2 * (8 + message));
      expect([bytes.readBigUInt64LE(8), bytes.readBigUInt64LE(16 + message)]).toEqual([1n, 3n]);
    });

    test("frames are 410, and without the lost ones with skipMissing", async () => {
      const session = await app.aSession();
      const canvas = `${T0}_1.webp.frames`;
      const frames = [1, 2, 3].map((nth) => frameRecord(T0 + nth, new Random(nth).bytes(900)));
      for (const [nth, frame] of frames.entries())
        for (const name of [canvas, `1-${T0 + nth}.frames`])
          await upload(app, session, [aFile(name, frame)], { path: "/v1/web/images", fields: [] });
      const rows = await app.sql<{ id: string }[]>`
        select chunk_segments[1] as id from image_uses join image_contents using (project_id, name, sha256)
        where session_id = ${session.sessionID} order by sent_at`;
      // The second frame, as both files have it.
      for (const { id } of rows.slice(2, 4)) await harm(app.objects, segmentKey(id), how);
      for (const name of [canvas, "replay.frames"]) {
        expect(await refusalOf(ask(session, name))).toEqual([410, text]);
        const answer = await ask(session, `${name}?skipMissing=true`);
        expect([name, await answer.bytes()]).toEqual([
          name,
          concat(frames.filter((_, nth) => nth !== 1)),
        ]);
      }
    });
  });

  test("away for a while, files are 503", async () => {
    const session = await harmed(pages, 0, (bytes) => bytes);
    faults.beforeRead = () => {
      throw new Error("away");
    };
    try {
      const text = "the object store is away, try again";
      expect(await refusalOf(ask(session, "dom.mobs"))).toEqual([503, text]);
    } finally {
      faults.beforeRead = () => undefined;
    }
    expect((await ask(session, "dom.mobs")).status).toBe(200);
  });
});
