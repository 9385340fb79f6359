import { type Log } from "./logger.ts";

const AGAIN_MS = 60_000;
// Maximum of distinct warnings within AGAIN_MS; further ones are dropped, because the error texts of
// a peer may vary endlessly.
const KINDS_MAX = 100;

type Logged = { atMs: number; suppressed: number };

const loggedBy = new WeakMap<Log, Map<string, Logged>>();

/**
 * Logs a recurring problem at once, then at most once a minute with the number of repetitions.
 * Texts that differ only in numbers or ids count as the same.
 */
export function warnRarely(
  log: Log,
  fields: { err?: unknown; [name: string]: unknown },
  message: string,
): void {
  const kinds = loggedBy.get(log) ?? new Map<string, Logged>();
  loggedBy.set(log, kinds);
  const kind = `${message}${reasonOf(fields.err)}`.replaceAll(/[0-9a-f-]{8,}|\d+/gi, "#");
  const last = kinds.get(kind);
  const nowMs = performance.now();
  if (last !== undefined && nowMs - last.atMs < AGAIN_MS) {
    last.suppressed++;
    return;
  }
  if (last === undefined && !hasRoom(kinds, nowMs)) return;
  kinds.set(kind, { atMs: nowMs, suppressed: 0 });
  const repeated = last !== undefined && last.suppressed > 0 && { repeated: last.suppressed };
  log.warn({ ...fields, ...repeated }, message);
}

/** Drops expired entries; returns whether there is room for another. */
function hasRoom(kinds: Map<string, Logged>, nowMs: number): boolean {
  if (kinds.size < KINDS_MAX) return true;
  for (const [kind, { atMs }] of kinds) if (nowMs - atMs >= AGAIN_MS) kinds.delete(kind);
  return kinds.size < KINDS_MAX;
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? `: ${error.name} ${error.message}${reasonOf(error.cause)}` : "";
}
