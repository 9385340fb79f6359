import { type Log } from "./log.ts";
import { warnRarely } from "./rare-warnings.ts";

/** Warns, rarely, of what Redis did not do, and says what an operator can do about it where that is known. */
export function warnOfRedis(log: Log, prefix: string, error: unknown, message: string): void {
  const advice = adviceOn(error instanceof Error ? error.message : "", prefix);
  warnRarely(log, { err: error, ...(advice !== undefined && { advice }) }, message);
}

/** Whether Redis itself refused it, rather than being away. */
export function isReply(error: unknown): boolean {
  return error instanceof Error && error.name === "ReplyError";
}

/** Whether a replica answered that takes no writes, or has lost its primary. */
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
