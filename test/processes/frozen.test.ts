import { describe, expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { pidsOf } from "../support/children.ts";
import { eventually, timed } from "../support/eventually.ts";
import { ServerProcess, envOf } from "../support/server-process.ts";
import { MAIN } from "../support/program.ts";

// Ten seconds, plus slack for a busy machine.
const REPLACED_MS_MAX = 60_000;

describe.skipIf(!process.env["TEST_LONG"])("a process that is frozen", () => {
  const app = TestApp.forTests();

  test.each(["serve", "work"])(
    "%s is replaced, and metrics are told meanwhile",
    async (command) => {
      await using server = await ServerProcess.start({ ...envOf(app), WORKERS: "2" }, [
        MAIN,
        "start",
      ]);
      const before = await pidsOf(server.pid, command);
      const [frozen = 0] = before;
      process.kill(frozen, "SIGSTOP");
      await eventually(
        "another one serves",
        async () => {
          const now = await pidsOf(server.pid, command);
          return now.length === before.length && !now.includes(frozen);
        },
        REPLACED_MS_MAX,
      );
      for (let nth = 0; nth < 20; nth++) {
        const { result, ms } = await timed(
          async () => await fetch(`${server.url}/metrics`, { keepalive: false }),
        );
        expect(result.status).toBe(200);
        expect(ms).toBeLessThan(10_000);
      }
    },
    2 * REPLACED_MS_MAX,
  );

  test("start is no reason to kill the others once it goes on", async () => {
    await using server = await ServerProcess.start({ ...envOf(app), WORKERS: "2" }, [
      MAIN,
      "start",
    ]);
    const before = await pidsOf(server.pid, "serve");
    server.signal("SIGSTOP");
    await Bun.sleep(15_000);
    server.signal("SIGCONT");
    await Bun.sleep(3000);
    expect(await pidsOf(server.pid, "serve")).toEqual(before);
  });
});
