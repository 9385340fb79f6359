import { expect, test } from "bun:test";
import { mkdtemp, readdir, rm, rmdir, statfs, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { KEYED, TestApp, splitBatches } from "../support/app.ts";
import { aBatch } from "../support/batches.ts";
import { runCommand } from "../support/command.ts";
import { eventually } from "../support/eventually.ts";
import { FaultyObjects, diskFull, succeeds } from "../support/faulty-objects.ts";
import { append, serverBeside } from "../support/requests.ts";

const DEADLINE_MS = 700;

test("a store without space refuses batches and readiness until there is some", async () => {
  const objects = new FaultyObjects();
  await using app = await TestApp.start({
    wrapObjects: objects.wrap,
    commitDeadlineMs: DEADLINE_MS,
  });
  const session = await app.aSession();
  objects.otherwise = diskFull;
  objects.beforePing = () => {
    throw new Error("no space left on device");
  };
  const refused = await append(app, session, aBatch());
  expect([refused.status, refused.headers.has("retry-after")]).toEqual([503, true]);
  await expectReadiness(app, 503, "down");
  expect(await app.batches(session)).toEqual([]);

  objects.otherwise = succeeds;
  objects.beforePing = () => undefined;
  expect((await append(app, session, aBatch())).status).toBe(200);
  await expectReadiness(app, 200, "ok");
  expect(await app.batches(session)).toEqual([aBatch()]);
});

// Only root may make a file system, and not in every container; everyone else has the test above.
const full = (await canMount()) ? ["a full disk"] : [];
test.each(full)(
  "%s does the same",
  async () => {
    await using disk = await aSmallDisk();
    await using app = await TestApp.start();
    const session = await app.aSession();
    await using server = await serverBeside(app, {
      config: { ...app.config, dataDir: disk.folder },
      commitDeadlineMs: DEADLINE_MS,
    });
    const [small, large] = [aBatch(), aBatch({ bytes: 900_000 })];
    expect((await append(server, session, small)).status).toBe(200);
    await fill(disk.folder);
    for (let i = 0; i < 5; i++) expect((await append(server, session, large)).status).toBe(503);
    await expectReadiness(server, 503, "down");
    expect(await readdir(join(disk.folder, "objects/.tmp"))).toEqual([]);

    await rm(join(disk.folder, "ballast"));
    expect((await append(server, session, large)).status).toBe(200);
    await expectReadiness(server, 200, "ok");
    const stored = await fetch(`${server.url}/v1/sessions/${session.sessionID}/batches`, {
      headers: { ...KEYED, accept: "application/octet-stream" },
    });
    expect(splitBatches(await stored.bytes())).toEqual([small, large]);
  },
  60_000,
);

test.each(full)("%s at start is called that", async () => {
  await using disk = await aSmallDisk();
  await fill(disk.folder);
  const { code, err } = await runCommand(["start"], { DATA_DIR: disk.folder, PORT: "0" });
  expect({ code, err }).toEqual({ code: 1, err: expect.stringMatching(/disk is full|ENOSPC/) });
});

async function expectReadiness(
  { url }: { url: string },
  status: number,
  objects: string,
): Promise<void> {
  await eventually(`readiness is ${status}`, async () => {
    const response = await fetch(`${url}/readyz`);
    const checks: unknown = await response.json();
    expect(checks).toMatchObject({ postgres: "ok", objects });
    return response.status === status;
  });
}

/** Up to the last byte that the file system gives. */
async function fill(folder: string): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  for (let bytes = bavail * bsize; ; bytes -= 64 * 1024)
    try {
      await writeFile(join(folder, "ballast"), new Uint8Array(bytes));
      return;
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "ENOSPC")) throw error;
    }
}

async function canMount(): Promise<boolean> {
  if (process.getuid?.() !== 0) return false;
  try {
    await using disk = await aSmallDisk();
    return disk.folder !== "";
  } catch {
    return false;
  }
}

async function aSmallDisk(): Promise<AsyncDisposable & { folder: string }> {
  const folder = await mkdtemp(join(tmpdir(), "floodgate-disk-"));
  const mounted = Bun.spawnSync(["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", folder]);
  if (mounted.exitCode !== 0) {
    await rmdir(folder);
    throw new Error(mounted.stderr.toString());
  }
  return {
    folder,
    [Symbol.asyncDispose]: async () => {
      Bun.spawnSync(["umount", folder]);
      await rmdir(folder);
    },
  };
}
