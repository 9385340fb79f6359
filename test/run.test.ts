import { existsSync, mkdtempSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { describe, expect, test } from "bun:test";

import { endIn } from "./support/end-run.ts";
import { eventually } from "./support/eventually.ts";
import { pureTests } from "./support/pure-tests.ts";
import { readSources } from "./support/tidy.ts";

describe("a run of tests", () => {
  test("that is killed leaves no process and no file behind", async () => {
    const child = Bun.spawn([process.execPath, "test", "./test/support/all-services.ts"], {
      env: process.env,
      stdout: "pipe",
      stderr: "ignore",
    });
    const folder = await firstLine(child.stdout);
    const names = (await commandsIn(folder)).map((path) => path.split("/").at(-1) ?? "");
    expect(names.toSorted()).toEqual([
      expect.stringMatching(/^bun/),
      "nginx",
      "postgres",
      "redis-server",
    ]);
    child.kill("SIGKILL");
    await eventually("all is gone", async () => !existsSync(folder));
    expect(await commandsIn(folder)).toEqual([]);
  });

  test("ends what a test has left running in a folder, also without its parent, and nothing else", async () => {
    const [folder, other] = [temporaryFolder(), temporaryFolder()];
    for (const TMPDIR of [folder, other])
      await Bun.spawn(["sh", "-c", "sleep 100 &"], { env: { ...process.env, TMPDIR } }).exited;
    expect(await commandsIn(folder)).toEqual(["sleep"]);
    await endIn(folder);
    expect([await commandsIn(folder), await commandsIn(other)]).toEqual([[], ["sleep"]]);
    expect([existsSync(folder), existsSync(other)]).toEqual([false, true]);
    await endIn(other);
  });
});

describe("a test is pure", () => {
  const impure = "Bun.spawn([])";
  test.each<[string, boolean, Record<string, string>]>([
    ["that imports nothing", true, { "test/a.test.ts": "" }],
    ["unless it starts a process", false, { "test/a.test.ts": impure }],
    [
      "unless something that it imports does",
      false,
      {
        "test/a.test.ts": 'import { b } from "./b.ts";',
        "test/b.ts": 'export { c } from "../src/c.ts";\nimport { a } from "./a.test.ts";',
        "src/c.ts": impure,
      },
    ],
    [
      "that imports types of such a file",
      true,
      { "test/a.test.ts": 'import { type B } from "./b.ts";', "test/b.ts": impure },
    ],
  ])("%s", (_what, isPure, files) => {
    const names = pureTests(new Map(Object.entries(files)));
    expect(names).toEqual(isPure ? ["test/a.test.ts"] : []);
  });

  test("if it is of a pure noun here, and not if it starts a server", async () => {
    const names = pureTests(await readSources("{src,test,bench}/**/*.ts"));
    expect(names.length).toBeGreaterThan(30);
    expect(names).toContain("test/log/segment.test.ts");
    expect(names).not.toContain("test/ingest/batches.test.ts");
  });
});

function temporaryFolder(): string {
  return mkdtempSync(join(tmpdir(), "floodgate-run-"));
}

async function firstLine(stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<string> {
  let text = "";
  for await (const part of stream.pipeThrough(new TextDecoderStream())) {
    text += part;
    const line = /^(\/\S+)\n/m.exec(text)?.[1];
    if (line !== undefined) return line;
  }
  throw new Error(`the run ended: ${text}`);
}

/** Lists the programs that run with this TMPDIR. */
async function commandsIn(folder: string): Promise<string[]> {
  const found = (await readdir("/proc")).map(async (pid) => {
    const environment = await read(`/proc/${pid}/environ`);
    if (!environment.split("\0").includes(`TMPDIR=${folder}`)) return [];
    return [(await read(`/proc/${pid}/cmdline`)).split(/[\0 ]/)[0] ?? ""];
  });
  return (await Promise.all(found)).flat();
}

async function read(path: string): Promise<string> {
  return await readFile(path, "utf8").catch(() => "");
}
