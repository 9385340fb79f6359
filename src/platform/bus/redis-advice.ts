import { type Log } from "../logger.ts";
import { warnRarely } from "../rare-warnings.ts";

/** Logs a failure of Redis at a limited rate, with advice if the cause is known. */
export function warnOfRedis(log: Log, prefix: string, error: unknown, message: string): void {
  const advice = adviceOn(error instanceof Error ? error.message : "", prefix);
  warnRarely(log, { err: error, ...(advice !== undefined && { advice }) }, message);
}

/** Returns whether Redis itself replied with an error, rather than being unreachable. */
export function isReply(error: unknown): boolean {
  return error instanceof Error && error.name === "ReplyError";
}

/** Returns whether the reply came from a read-only replica or one that has lost its primary. */
export function isOfReplica(message: string): boolean {
  return /\b(?:READONLY|MASTERDOWN)\b/.test(message);
}

function adviceOn(message: string, prefix: string): string | undefined {
  const [, command] = message.match(/^NOPERM .* run the '([^']+)' command/) ?? [];
  if (command !== undefined) return `the ACL user needs +${command}`;
  if (/^NOPERM .*\bchannels?\b/.test(message)) return `the ACL user needs &${prefix}*`;
  if (/^NOPERM .*\bkeys?\b/.test(message)) return `the ACL user needs ~${prefix}*`;
  if (message.startsWith("WRONGPASS")) return "the user or the password in REDIS_URL is wrong";
  if (message.startsWith("NOAUTH")) return "REDIS_URL needs a password";
  if (isOfReplica(message)) return "REDIS_URL leads to a replica";
  if (message.startsWith("OOM")) return "maxmemory is reached, and nothing is evicted";
  return undefined;
}
