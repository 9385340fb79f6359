import { dlopen, ptr } from "bun:ffi";
import { closeSync, openSync, readFileSync, readdirSync, readlinkSync } from "node:fs";
import { setImmediate } from "node:timers/promises";

import { UsageError } from "../errors.ts";
import { type Log } from "../logger.ts";

// Of Linux: netinet/in.h, netinet/tcp.h.
const IPPROTO_TCP = 6;
const TCP_DEFER_ACCEPT = 9;
const OFF = new Int32Array([0]);
const LIBC = {
  dup2: { args: ["i32", "i32"], returns: "i32" },
  setsockopt: { args: ["i32", "i32", "i32", "ptr", "u32"], returns: "i32" },
} as const;

const DEFERRED_MS = 100;
const ACCEPT_TURNS = 3;

const LISTENING = "0A";

// Error codes of a port. Any other is about the host; which one Bun gives depends on what the process
// did before.
const OF_PORT = new Set(["EADDRINUSE", "EACCES"]);

const LEAVING_MS = 10_000;
const LOOK_MS = 100;

/**
 * Refuses new connections to a port of this process's while the open ones go on. Bun's own `stop` also ends those that are idle, on
 * which a proxy may be sending a request at that moment. False where that cannot be done: on anything but Linux.
 */
export async function refuseConnections(port: number): Promise<boolean> {
  try {
    const inodes = new Set(["tcp", "tcp6"].flatMap((table) => listenersOf(table, port)));
    const sockets = socketsOf(inodes);
    const { symbols: libc } = dlopen("libc.so.6", LIBC);
    const nothing = openSync("/dev/null", "r");
    // Bun has connections handed over with their first bytes only. One that is made and has not sent them yet would be reset with the
    // listener, so from now on it is accepted at once.
    for (const fd of sockets)
      libc.setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, ptr(OFF), OFF.byteLength);
    await Bun.sleep(DEFERRED_MS);
    for (let turn = 0; turn < ACCEPT_TURNS; turn++) await setImmediate();
    // The socket closes when its descriptor becomes another file's; Bun closes that later by the same number.
    const closed = sockets.filter((fd) => libc.dup2(nothing, fd) === fd);
    closeSync(nothing);
    return closed.length > 0;
  } catch {
    return false;
  }
}

/** Resolves when nobody listens on the port, not even to share it. Throws UsageError when it stays taken for ten seconds. */
export async function untilFree(host: string, port: number, log: Log): Promise<void> {
  for (let ms = 0; ; ms += LOOK_MS)
    try {
      await Bun.serve({ hostname: host, port, fetch: answerNothing }).stop(true);
      return;
    } catch (cause) {
      const isTaken = cause instanceof Error && "code" in cause && cause.code === "EADDRINUSE";
      if (!isTaken || ms >= LEAVING_MS) throw cannotListen(host, port, cause);
      if (ms === 0) log.warn({ port }, "the port is taken, waiting for it");
      await Bun.sleep(LOOK_MS);
    }
}

const answerNothing = () => new Response();

/** Throws UsageError if the host is not one that this machine can listen on. */
export async function checkHost(host: string): Promise<void> {
  try {
    await Bun.serve({ hostname: host, port: 0, fetch: answerNothing }).stop(true);
  } catch (cause) {
    throw cannotListen(host, 0, cause);
  }
}

/** Why a port could not be listened on, for the operator. */
export function cannotListen(host: string, port: number, cause: unknown): UsageError {
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
  const message = cause instanceof Error ? cause.message : String(cause);
  return new UsageError(
    OF_PORT.has(code)
      ? `cannot listen on ${host}:${port}: ${message}`
      : `cannot listen on HOST "${host}": it is neither an address nor a name of this machine (unset it, or set 0.0.0.0 for all of its addresses)`,
    { cause },
  );
}

/** The inodes of all sockets that listen on a port; lines as in proc(5). */
function listenersOf(table: string, port: number): string[] {
  const wanted = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const lines = readFileSync(`/proc/self/net/${table}`, "utf8").split("\n").slice(1);
  return lines.flatMap((line) => {
    const [, local = "", , state, , , , , , inode = ""] = line.trim().split(/\s+/);
    return local.endsWith(wanted) && state === LISTENING ? [inode] : [];
  });
}

/** This process's descriptors of those sockets. */
function socketsOf(inodes: Set<string>): number[] {
  return readdirSync("/proc/self/fd").flatMap((name) => {
    try {
      const [, inode = ""] = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/self/fd/${name}`)) ?? [];
      return inodes.has(inode) ? [Number(name)] : [];
    } catch {
      // It was the folder's own, which is closed again.
      return [];
    }
  });
}
