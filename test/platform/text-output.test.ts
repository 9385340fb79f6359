import { closeSync, constants, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterAll, expect, test } from "bun:test";

import { openPipe } from "../support/pipes.ts";

const PLATFORM = join(import.meta.dir, "../../src/platform");
const LINE = "x".repeat(1000);
const ENDS_MS_MAX = 20_000;

const folder = mkdtempSync(join(tmpdir(), "floodgate-output-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** Returns a pipe whose reader is closed. */
function broken(): number {
  const { reader, writer } = openPipe();
  closeSync(reader);
  return writer;
}

/** Returns a pipe whose reader does not read. */
function stuck(): number {
  return openPipe().writer;
}

/**
 * Runs a script that logs to the descriptor. Returns its exit code, or "killed" after a timeout.
 */
async function ended(stderr: number, script: string): Promise<number | "killed"> {
  const child = Bun.spawn([process.execPath, "-e", `${IMPORTS}${script}`], {
    stdio: ["ignore", "ignore", stderr],
    timeout: ENDS_MS_MAX,
    killSignal: "SIGKILL",
  });
  const code = await child.exited;
  closeSync(stderr);
  return child.signalCode === null ? code : "killed";
}

const IMPORTS = `
  import { openLog } from "${PLATFORM}/logger.ts";
  import { STDERR } from "${PLATFORM}/text-output.ts";
  const log = openLog("info");
`;
const CLOSED = `await STDERR.close(500); process.exit(7)`;

test.each<[string, () => number]>([
  ["whose reader has gone", broken],
  ["whose reader does not read", stuck],
  ["to a full disk", () => openSync("/dev/full", constants.O_WRONLY)],
])(
  "a log %s keeps no process from its end",
  async (_what, open) => {
    const lines = `for (let n = 0; n < 1000; n++) log.info("${LINE}");`;
    expect(await ended(open(), lines + CLOSED)).toBe(7);
  },
  60_000,
);

test.each<[string, () => number]>([
  ["whose reader has gone", broken],
  ["to a full disk", () => openSync("/dev/full", constants.O_WRONLY)],
])(
  "a log %s keeps no process from an unexpected end",
  async (_what, open) => {
    expect(await ended(open(), `log.info("bye"); process.exit(7)`)).toBe(7);
  },
  60_000,
);

test("every line arrives in its order, also the last ones of a process that ends unexpectedly", async () => {
  for (const end of [CLOSED, "process.exit(7)", "throw new Error('unexpected')"]) {
    const path = join(folder, crypto.randomUUID());
    const stderr = openSync(path, "w");
    const lines = `for (let n = 0; n < 500; n++) log.info({ n }, "${LINE}");`;
    await ended(stderr, `${lines} await Bun.sleep(1); log.info({ n: 500 }, "bye"); ${end}`);
    const numbers = [...readFileSync(path, "utf8").matchAll(/"n":(\d+),/g)].map(([, n]) =>
      Number(n),
    );
    expect(numbers).toEqual(Array.from({ length: 501 }, (_, n) => n));
  }
});
