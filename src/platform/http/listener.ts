import { dlopen, ptr } from "bun:ffi";
import { closeSync, openSync, readFileSync, readdirSync, readlinkSync } from "node:fs";
import { setImmediate } from "node:timers/promises";

import { UsageError } from "../errors.ts";
import { type Log } from "../logger.ts";

// Constants of Linux, from netinet/in.h and netinet/tcp.h.
const IPPROTO_TCP = 6;
const TCP_DEFER_ACCEPT = 9;
const OFF = new Int32Array([0]);
const LIBC = {
  dup2: { args: ["i32", "i32"], returns: "i32" },
  setsockopt: { args: ["i32", "i32", "i32", "ptr", "u32"], returns: "i32" },
} as const;

const DEFERRED_MS = 100;
const ACCEPT_TURNS = 3;

// State of a listening socket in /proc/self/net/tcp, see proc(5).
const LISTENING = "0A";

// Error codes that concern the port. All others concern the host; which of those Bun reports depends
// on what the process did before.
const OF_PORT = new Set(["EADDRINUSE", "EACCES"]);

const LEAVING_MS = 10_000;
const LOOK_MS = 100;

/**
 * Refuses new connections to a port of this process and keeps the open ones. Bun's own `stop` also
 * closes idle connections, on which a proxy may be sending a request at that moment. Returns false
 * if that is not possible, as on anything but Linux.
 */
export async function refuseConnections(port: number): Promise<boolean> {
  try {
    const inodes = new Set(["tcp", "tcp6"].flatMap((table) => listenersOf(table, port)));
    const sockets = socketsOf(inodes);
    const { symbols: libc } = dlopen("libc.so.6", LIBC);
    const nothing = openSync("/dev/null", "r");
    // Bun sets TCP_DEFER_ACCEPT: the kernel holds a new connection until its first bytes arrive, and
    // closing the listener would reset it. Accept connections at once from now on.
    for (const fd of sockets)
      libc.setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, ptr(OFF), OFF.byteLength);
    await Bun.sleep(DEFERRED_MS);
    for (let turn = 0; turn < ACCEPT_TURNS; turn++) await setImmediate();
    // Putting another file in place of the descriptor closes the socket. Bun later closes that file
    // by the same number.
    const closed = sockets.filter((fd) => libc.dup2(nothing, fd) === fd);
    closeSync(nothing);
    return closed.length > 0;
  } catch {
    return false;
  }
}

/**
 * Resolves when no process listens on the port, not even one that would share it. Throws UsageError
 * if the port stays taken for ten seconds.
 */
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

/** Makes the error that tells the operator why a port cannot be listened on. */
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

/** Returns the inodes of all sockets that listen on a port. Reads lines as in proc(5). */
function listenersOf(table: string, port: number): string[] {
  const wanted = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const lines = readFileSync(`/proc/self/net/${table}`, "utf8").split("\n").slice(1);
  return lines.flatMap((line) => {
    const [, local = "", , state, , , , , , inode = ""] = line.trim().split(/\s+/);
    return local.endsWith(wanted) && state === LISTENING ? [inode] : [];
  });
}

/** Returns this process's file descriptors of the sockets with those inodes. */
function socketsOf(inodes: Set<string>): number[] {
  return readdirSync("/proc/self/fd").flatMap((name) => {
    try {
      const [, inode = ""] = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/self/fd/${name}`)) ?? [];
      return inodes.has(inode) ? [Number(name)] : [];
    } catch {
      // The descriptor was that of the folder itself, which is closed by now.
      return [];
    }
  });
}
