import { describe, expect, setDefaultTimeout, test } from "bun:test";

import { TestApp, type TestSession } from "../support/app.ts";
import { aBatch } from "../support/batches.ts";
import { indexState } from "../support/index-state.ts";
import { Random } from "../support/random.ts";
import { uploadImage } from "../support/images.ts";
import { append, statusOf } from "../support/requests.ts";
import { ServerProcess, envOf } from "../support/server-process.ts";

// The first run on a machine may install the S3 server.
setDefaultTimeout(120_000);

const SMALL_SEGMENTS = { COMMIT_BYTES: String(192 * 1024) };
const COMMITS_BEFORE = 3;

describe.each(["files", "s3"] as const)("on %s, a server killed", (store) => {
  test("before the PUT leaves nothing, and a retry stores the batch once", async () => {
    await using app = await TestApp.start({ store });
    const { session, before } = await dieSending(app, "before-put");
    expect(await stateOf(app)).toEqual(before);
    expect(await app.batches(session)).toHaveLength(COMMITS_BEFORE);
    await retryOnANewServer(app, session);
    expect(await stateOf(app)).toEqual(plusOne(before));
  });

  test("after the PUT leaves an orphan that no reader sees, and a retry stores the batch once", async () => {
    await using app = await TestApp.start({ store });
    const { session, before } = await dieSending(app, "after-put");
    const after = await stateOf(app);
    expect(after.orphans).toHaveLength(1);
    expect(after).toEqual({ ...before, orphans: after.orphans });
    expect(await app.batches(session)).toHaveLength(COMMITS_BEFORE);
    await retryOnANewServer(app, session);
    expect(await stateOf(app)).toEqual({ ...plusOne(before), orphans: after.orphans });
  });

  test("after the index has the batch though its client knows nothing, and a retry is a 200", async () => {
    await using app = await TestApp.start({ store });
    const { session, before } = await dieSending(app, "after-index");
    expect(await stateOf(app)).toEqual(plusOne(before));
    expect(await app.batches(session)).toEqual([...earlier(), aBatch()]);
    await retryOnANewServer(app, session);
    // The retry is a segment of its own, whose one batch was there.
    expect(await stateOf(app)).toEqual({ ...plusOne(before), segments: before.segments + 2 });
  });
});

test("an image whose server is killed at any of its commits is not there, or whole", async () => {
  await using app = await TestApp.start({ env: SMALL_SEGMENTS });
  const session = await app.aSession();
  const places = [1, 2, 3].flatMap((on) =>
    (["before-put", "after-put", "after-index"] as const).map((step) => ({ step, on })),
  );
  const outcomes = await Promise.all(
    places.map(async ({ step, on }, number) => {
      const image = new Random(number).bytes(500_000);
      const name = `image-${number}`;
      await using dying = await aDyingServer(app, step, on);
      const { projectID } = app;
      const upload = async ({ url }: { url: string }) =>
        await statusOf(uploadImage({ url, projectID }, session, name, image));
      expect(await upload(dying)).toBe("no answer");
      await dying.exited;
      const found = await app.fetch(`/v1/images/${app.project.id}/${name}`);
      const bytes = Buffer.from(await found.bytes());
      if (found.status === 200) expect(bytes.equals(image)).toBe(true);
      expect(await upload(app)).toBe(200);
      const stored = await app.fetch(`/v1/images/${app.project.id}/${name}`);
      expect(Buffer.from(await stored.bytes()).equals(image)).toBe(true);
      return found.status;
    }),
  );
  // It takes three segments or more, so only after the last of these steps its row can be there.
  expect(outcomes.slice(0, -1)).toEqual(outcomes.slice(0, -1).map(() => 404));
});

type Step = "before-put" | "after-put" | "after-index";

/** Sends batches to a server that dies at that step of the last one's commit. */
async function dieSending(app: TestApp, step: Step) {
  const session = await app.aSession();
  await using dying = await aDyingServer(app, step, COMMITS_BEFORE + 1);
  for (const batch of earlier()) expect(await statusOf(append(dying, session, batch))).toBe(200);
  const before = await stateOf(app);
  expect(await statusOf(append(dying, session, aBatch()))).toBe("no answer");
  expect(await dying.exited).not.toBe(0);
  return { session, before };
}

async function aDyingServer(app: TestApp, step: Step, on: number): Promise<ServerProcess> {
  const env = { ...envOf(app), DIE_AT: step, DIE_ON: String(on) };
  return await ServerProcess.start(env, ["test/support/serve-and-die.ts"]);
}

async function retryOnANewServer(app: TestApp, session: TestSession): Promise<void> {
  await using server = await ServerProcess.start(envOf(app));
  expect(await statusOf(append(server, session, aBatch()))).toBe(200);
  expect(await app.batches(session)).toEqual([...earlier(), aBatch()]);
}

function earlier(): Uint8Array[] {
  return Array.from({ length: COMMITS_BEFORE }, (_, i) => aBatch({ salt: `earlier${i}` }));
}

const stateOf = async ({ sql, objects }: TestApp) => await indexState(sql, objects);
type State = Awaited<ReturnType<typeof stateOf>>;

/** One batch more, and its segment. */
function plusOne({ batches, distinct, segments, ...rest }: State): State {
  return { batches: batches + 1, distinct: distinct + 1, segments: segments + 1, ...rest };
}
