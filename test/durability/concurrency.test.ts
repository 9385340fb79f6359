import { expect, setDefaultTimeout, test } from "bun:test";

import { indexSegment } from "../../src/log/segment-index.ts";
import { metric } from "../support/answers.ts";
import { TestApp, type TestSession } from "../support/app.ts";
import { aBatch } from "../support/batches.ts";
import { timed } from "../support/eventually.ts";
import { imageList, imageOf, sha256Of, uploadImage } from "../support/images.ts";
import { indexState } from "../support/index-state.ts";
import { Random } from "../support/random.ts";
import { append, serverBeside, statusOf } from "../support/requests.ts";
import { ServerProcess, envOf } from "../support/server-process.ts";

// The first run on a machine may install the S3 server.
setDefaultTimeout(120_000);

const TIMES = 200;

test.each(["files", "s3"] as const)(
  "a batch sent 200 times at once to two processes is acknowledged each time and stored once, on %s",
  async (store) => {
    await using app = await TestApp.start({ store });
    await using first = await ServerProcess.start(envOf(app));
    await using second = await ServerProcess.start(envOf(app));
    const session = await app.aSession();
    const statuses = await Promise.all(
      Array.from({ length: TIMES }, (_, i) =>
        statusOf(append(i % 2 === 0 ? first : second, session, aBatch())),
      ),
    );
    expect(statuses).toEqual(statuses.map(() => 200));
    expect(await app.batches(session)).toEqual([aBatch()]);
    expect(await stateOf(app)).toMatchObject({ batches: 1, distinct: 1, orphans: [], missing: [] });
  },
);

test("many batches, each sent to two processes at once, are stored once", async () => {
  await using app = await TestApp.start();
  await using first = await ServerProcess.start(envOf(app));
  await using second = await ServerProcess.start(envOf(app));
  const sessions = await Promise.all(Array.from({ length: 10 }, () => app.aSession()));
  const sends = sessions.flatMap((session) =>
    Array.from({ length: 20 }, (_, i) => ({ session, batch: aBatch({ salt: `${i}` }) })),
  );
  const statuses = await Promise.all([
    ...sends.map(({ session, batch }) => statusOf(append(first, session, batch))),
    ...sends.toReversed().map(({ session, batch }) => statusOf(append(second, session, batch))),
  ]);
  expect(statuses).toEqual(statuses.map(() => 200));
  for (const session of sessions) expect(await app.batches(session)).toHaveLength(20);
  expect(await stateOf(app)).toMatchObject({ batches: 200, distinct: 200, missing: [] });
});

test.each([300_000, 3000])(
  "images of %d bytes sent to two processes at once under one name are all stored, equal ones once",
  async (size) => {
    await using app = await TestApp.start();
    await using first = await ServerProcess.start(envOf(app));
    await using second = await ServerProcess.start(envOf(app));
    const sessions = [await app.aSession(), await app.aSession()];
    for (let round = 0; round < 10; round++) {
      const images = [0, 1].map((n) => new Random(2 * round + n).bytes(size));
      const sends = [first, second].flatMap(({ url }) =>
        sessions.flatMap((session) => images.map((image) => ({ url, session, image }))),
      );
      const statuses = await Promise.all(
        sends.map(({ url, session, image }) =>
          statusOf(uploadImage({ url, projectID: app.projectID }, session, `i${round}`, image)),
        ),
      );
      expect(statuses).toEqual(sends.map(() => 200));
      const hashes = images.map(sha256Of);
      for (const session of sessions) {
        const listed = (await imageList(app, session)).filter(({ name }) => name === `i${round}`);
        expect(listed.map(({ sha256 }) => sha256)).toEqual(hashes.toSorted());
        for (const [index, hash] of hashes.entries()) {
          const query = `?session=${session.sessionID}&sha256=${hash}`;
          const stored = await imageOf(app, `i${round}`, app.project.id, query);
          expect(stored).toEqual(images[index]);
        }
      }
    }
    const rows =
      await app.sql`select count(*)::integer as contents, sum(uses)::integer as uses from image_contents`;
    expect(Array.from(rows)).toEqual([{ contents: 20, uses: 80 }]);
  },
);

test("forms of the same images in opposite order do not wait for one another", async () => {
  await using app = await TestApp.start();
  await using other = await serverBeside(app);
  const session = await app.aSession();
  for (let round = 0; round < 15; round++) {
    const names = Array.from({ length: 200 }, (_, i) => `r${round}-${i}`);
    const statuses = await Promise.all([
      statusOf(uploadImages(app.url, app.projectID, session, names)),
      statusOf(uploadImages(other.url, app.projectID, session, names.toReversed())),
    ]);
    expect(statuses).toEqual([200, 200]);
  }
  // A deadlock is broken after a second, by failing one of the two.
  for (const server of [app, other])
    expect(await metric(server, 'floodgate_segment_retries_total{step="index"}', Number.NaN)).toBe(
      0,
    );
});

test("a segment that was collected as an orphan before its writer came to index it is a 503, and its retry a 200", async () => {
  await using app = await TestApp.start();
  let collected: string | undefined;
  await using server = await serverBeside(app, {
    index: async (sql, segment) => {
      if (collected === undefined && segment.entries.some(({ kind }) => kind === "batch")) {
        collected = segment.id;
        await sql`insert into segments (id, bytes, records, deleted) values (${segment.id}, 0, 0, true)`;
      }
      return await indexSegment(sql, segment);
    },
  });
  const session = await app.aSession();
  const { result, ms } = await timed(() => append(server, session, aBatch()));
  expect(result.status).toBe(503);
  expect(Number(result.headers.get("retry-after"))).toBeGreaterThan(0);
  // No retry can bring it back, so none is made.
  expect(ms).toBeLessThan(2000);
  expect(await app.batches(session)).toEqual([]);
  expect(await stateOf(app)).toMatchObject({ batches: 0, orphans: [expect.any(String)] });

  expect(await statusOf(append(server, session, aBatch()))).toBe(200);
  expect(await app.batches(session)).toEqual([aBatch()]);
  const [tombstone] = await app.sql`select deleted from segments where id = ${collected ?? ""}`;
  expect(tombstone).toEqual({ deleted: true });
});

test("an index whose answer is lost, or that fails for a while, indexes once", async () => {
  await using app = await TestApp.start();
  let attempts = 0;
  await using server = await serverBeside(app, {
    index: async (sql, segment) => {
      attempts++;
      if (attempts % 3 === 1) throw new Error("no connection");
      const counts = await indexSegment(sql, segment);
      if (attempts % 3 === 2) throw new Error("the answer was lost");
      return counts;
    },
  });
  const session = await app.aSession();
  for (let i = 0; i < 5; i++)
    expect(await statusOf(append(server, session, aBatch({ salt: `${i}` })))).toBe(200);
  expect(attempts).toBe(15);
  expect(await app.batches(session)).toHaveLength(5);
  expect(await stateOf(app)).toMatchObject({ batches: 5, distinct: 5, orphans: [], missing: [] });
});

async function uploadImages(
  url: string,
  projectID: number,
  { token }: TestSession,
  names: string[],
): Promise<Response> {
  const form = new FormData();
  form.set("projectID", String(projectID));
  for (const name of names) form.append("file", new File([name], name, { type: "image/png" }));
  return await fetch(`${url}/v1/ios/images`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}` },
    body: form,
  });
}

const stateOf = async ({ sql, objects }: TestApp) => await indexState(sql, objects);
