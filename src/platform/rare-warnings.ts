import { type Log } from "./logger.ts";

const AGAIN_MS = 60_000;
// Distinct warnings remembered at most: the peer's error texts may vary endlessly.
const KINDS_MAX = 100;

type Told = { atMs: number; unsaid: number };

const toldBy = new WeakMap<Log, Map<string, Told>>();

/**
 * Logs a recurring problem at once, then at most once a minute with the number of repetitions.
 * Texts that differ only in numbers or ids count as the same.
 */
export function warnRarely(
  log: Log,
  fields: { err?: unknown; [name: string]: unknown },
  message: string,
): void {
  const kinds = toldBy.get(log) ?? new Map<string, Told>();
  toldBy.set(log, kinds);
  const kind = `${message}${reasonOf(fields.err)}`.replaceAll(/[0-9a-f-]{8,}|\d+/gi, "#");
  const told = kinds.get(kind);
  const nowMs = performance.now();
  if (told !== undefined && nowMs - told.atMs < AGAIN_MS) {
    told.unsaid++;
    return;
  }
  if (told === undefined && !hasRoom(kinds, nowMs)) return;
  kinds.set(kind, { atMs: nowMs, unsaid: 0 });
  const repeated = told !== undefined && told.unsaid > 0 && { repeated: told.unsaid };
  log.warn({ ...fields, ...repeated }, message);
}

/** Drops expired entries; returns whether there is room for another. */
function hasRoom(kinds: Map<string, Told>, nowMs: number): boolean {
  if (kinds.size < KINDS_MAX) return true;
  for (const [kind, { atMs }] of kinds) if (nowMs - atMs >= AGAIN_MS) kinds.delete(kind);
  return kinds.size < KINDS_MAX;
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? `: ${error.name} ${error.message}${reasonOf(error.cause)}` : "";
}
