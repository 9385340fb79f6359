import { readFileSync } from "node:fs";

import { Type } from "typebox";
import { Value } from "typebox/value";

import { type Log } from "../platform/logger.ts";

const TIMES = {
  tickMs: 1000,
  silentMsMax: 10_000,
  // The first answer may take longer: a process that loads its program from a slow disk cannot
  // answer yet.
  firstMsMax: 60_000,
};

const Beat = Type.Object({ beat: Type.Literal(true) });
const BEAT: Type.Static<typeof Beat> = { beat: true };

/** A child process of the supervisor. */
type Peer = { pid: number; send: (message: unknown) => unknown; kill: (signal: "SIGKILL") => void };
type Pulse = {
  peer: Peer;
  command: string;
  hasAnswered: boolean;
  isAsked: boolean;
  silentMs: number;
  waitedMs: number;
};

export type HeartbeatOptions = Partial<typeof TIMES> & { waitedMs?: (pid: number) => number };

/**
 * Watchdog of the supervisor: kills child processes whose event loop is blocked, so that they are
 * restarted. Asks each one over its IPC channel, because any process may answer on a shared port.
 * Time in which a process was starved of CPU, or in which the supervisor itself did not run, does
 * not count.
 */
export class Heartbeats implements Disposable {
  readonly #log: Log;
  readonly #times: typeof TIMES;
  readonly #waitedMs: (pid: number) => number;
  readonly #pulses = new Map<object, Pulse>();
  readonly #timer: NodeJS.Timeout;
  #tickedMs = performance.now();

  constructor(log: Log, { waitedMs = waitedForCoreMs, ...times }: HeartbeatOptions = {}) {
    this.#log = log;
    this.#times = { ...TIMES, ...times };
    this.#waitedMs = waitedMs;
    this.#timer = setInterval(() => this.#tick(), this.#times.tickMs);
    this.#timer.unref();
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  add(peer: Peer, command: string): void {
    const waitedMs = this.#waitedMs(peer.pid);
    const pulse = { peer, command, hasAnswered: false, isAsked: false, silentMs: 0, waitedMs };
    this.#pulses.set(peer, pulse);
  }

  remove(peer: Peer): void {
    this.#pulses.delete(peer);
  }

  /**
   * Records that the process's event loop runs, which any message proves. Returns whether the
   * message was only a heartbeat.
   */
  take(peer: Peer, message: unknown): boolean {
    const pulse = this.#pulses.get(peer);
    if (pulse !== undefined)
      Object.assign(pulse, { hasAnswered: true, isAsked: false, silentMs: 0 });
    return Value.Check(Beat, message);
  }

  /** True if the process has missed heartbeats; callers should not wait for it. */
  isSilent(peer: object): boolean {
    return (this.#pulses.get(peer)?.silentMs ?? 0) > 2 * this.#times.tickMs;
  }

  #tick(): void {
    const nowMs = performance.now();
    // A longer gap means that the supervisor itself was frozen or starved: answers may be unread.
    const passedMs = Math.min(nowMs - this.#tickedMs, 1.5 * this.#times.tickMs);
    this.#tickedMs = nowMs;
    for (const pulse of this.#pulses.values()) this.#ask(pulse, passedMs);
  }

  #ask(pulse: Pulse, passedMs: number): void {
    const { peer } = pulse;
    const { silentMsMax, firstMsMax } = this.#times;
    const waitedMs = this.#waitedMs(peer.pid);
    if (pulse.isAsked) pulse.silentMs += Math.max(0, passedMs - (waitedMs - pulse.waitedMs));
    pulse.waitedMs = waitedMs;
    if (pulse.silentMs >= (pulse.hasAnswered ? silentMsMax : firstMsMax)) {
      const { command: process, silentMs } = pulse;
      this.#pulses.delete(peer);
      this.#log.error(
        { process, pid: peer.pid, silentMs: Math.round(silentMs) },
        "a process does not answer and is killed",
      );
      peer.kill("SIGKILL");
      return;
    }
    pulse.isAsked = true;
    send(peer);
  }
}

/**
 * Answers the supervisor's heartbeats, if this process has a supervisor, while the event loop runs.
 */
export function answerHeartbeats(): void {
  if (process.send === undefined) return;
  process.on("message", (message) => {
    if (Value.Check(Beat, message) && process.connected) process.send?.(BEAT);
  });
}

/**
 * Time for which a process's main thread was runnable but got no CPU; 0 if Linux does not report
 * it.
 */
function waitedForCoreMs(pid: number): number {
  try {
    const [, waitedNs = "0"] = readFileSync(`/proc/${pid}/schedstat`, "utf8").split(" ");
    return Number(waitedNs) / 1e6;
  } catch {
    return 0;
  }
}

function send(peer: Peer): void {
  try {
    peer.send(BEAT);
  } catch {
    // The process has just exited, which is reported separately.
  }
}
