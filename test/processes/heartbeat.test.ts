import { join } from "node:path";

import { afterEach, expect, test } from "bun:test";
import { pino } from "pino";

import { type HeartbeatOptions, Heartbeats } from "../../src/processes/heartbeat.ts";
import { eventually } from "../support/eventually.ts";

const MODULE = join(import.meta.dir, "../../src/processes/heartbeat.ts");
// Script of a process that reports readiness once it has answered a heartbeat.
const ANSWERS = `
  import { answerHeartbeats } from "${MODULE}";
  answerHeartbeats();
  process.once("message", () => process.send("up"));
`;
const FAST = { tickMs: 50, silentMsMax: 500, firstMsMax: 20_000, waitedMs: () => 0 };

/** Script of a process that answers once and then blocks its event loop. */
function busyFor(ms: number): string {
  const busy = `const until = Date.now() + ${ms}; while (Date.now() < until);`;
  return `${ANSWERS} process.once("message", () => { ${busy} });`;
}

type Kept = { child: Bun.Subprocess; isUp: Promise<void> };

const running = new Set<Bun.Subprocess>();
afterEach(() => {
  for (const child of running) child.kill("SIGKILL");
  running.clear();
});

/** Supervises test processes with heartbeats, and collects the supervisor's log. */
function keeping(options: HeartbeatOptions = {}) {
  const lines: string[] = [];
  const log = pino({ level: "error" }, { write: (line: string) => void lines.push(line) });
  const heartbeats = new Heartbeats(log, { ...FAST, ...options });
  const keep = (script = ANSWERS): Kept => {
    const up = Promise.withResolvers<void>();
    const child = Bun.spawn([process.execPath, "-e", script], {
      stdio: ["ignore", "inherit", "inherit"],
      ipc: (message: unknown) => {
        if (!heartbeats.take(child, message)) up.resolve();
      },
    });
    running.add(child);
    heartbeats.add(child, "serve");
    return { child, isUp: up.promise };
  };
  return { heartbeats, keep, lines, [Symbol.dispose]: () => heartbeats[Symbol.dispose]() };
}

test("a process that is frozen is killed and named, and the others are let be", async () => {
  using kept = keeping();
  const { heartbeats, keep, lines } = kept;
  const [frozen, other] = [keep(), keep()];
  await Promise.all([frozen.isUp, other.isUp]);
  frozen.child.kill("SIGSTOP");
  await eventually("it is known to be silent", () => heartbeats.isSilent(frozen.child));
  await frozen.child.exited;
  expect(frozen.child.signalCode).toBe("SIGKILL");
  expect(lines).toHaveLength(1);
  expect(lines[0]).toContain(`"process":"serve","pid":${frozen.child.pid}`);
  expect(heartbeats.isSilent(other.child)).toBe(false);
  expect(other.child.exitCode).toBeNull();
});

test("a process whose event loop does not turn is killed, and one that is busy for less than the bound is not", async () => {
  using kept = keeping();
  const { keep, lines } = kept;
  const [stuck, collecting] = [keep(busyFor(600_000)), keep(busyFor(200))];
  await Promise.all([stuck.isUp, collecting.isUp]);
  await stuck.child.exited;
  expect(stuck.child.signalCode).toBe("SIGKILL");
  expect(collecting.child.exitCode).toBeNull();
  expect(lines).toHaveLength(1);
});

test("time in which a process waits for a core does not count", async () => {
  let waitedMs = 0;
  using kept = keeping({ waitedMs: () => waitedMs });
  const { keep, lines } = kept;
  const { child, isUp } = keep();
  await isUp;
  // Pretend that the process is starved of CPU.
  const starving = setInterval(() => (waitedMs += 100), 10);
  child.kill("SIGSTOP");
  await Bun.sleep(1500);
  expect([lines, child.exitCode]).toEqual([[], null]);
  clearInterval(starving);
  await child.exited;
  expect(lines).toHaveLength(1);
});

test("a supervisor that was frozen itself kills nobody", async () => {
  using kept = keeping();
  const { keep, lines } = kept;
  const { child, isUp } = keep();
  await isUp;
  for (let times = 0; times < 3; times++) {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1000);
    await Bun.sleep(100);
  }
  expect([lines, child.exitCode]).toEqual([[], null]);
});

test("a process that has not loaded its program yet is given longer", async () => {
  using kept = keeping({ firstMsMax: 2000 });
  const { keep, lines } = kept;
  const { child } = keep("setInterval(() => undefined, 1000)");
  await Bun.sleep(1000);
  expect(child.exitCode).toBeNull();
  await child.exited;
  expect(lines).toHaveLength(1);
});
