import { type Clock } from "../platform/clock.ts";
import { type Http2Pool } from "./http2-pool.ts";
import { type PreparedMessage } from "./message.ts";
import {
  CredentialsRefused,
  CredentialsUnavailable,
  type Outcome,
  type Provider,
  type PushTarget,
  type Verdict,
} from "./outcome.ts";
import { backoff, type Backoff, type Gate, parseRetryAfter, pause } from "./pacing.ts";

export type Persistence = {
  /** Of times that a provider may have seen the push and did not take it. */
  attempts: number;
  /** From the first attempt on. */
  deadlineMs: number;
  backoff: Backoff;
  /** For a quota that is used up, where the provider does not say for how long. */
  quotaBackoff: Backoff;
  /** A provider that asks for more is asked again after this. */
  retryAfterMsMax: number;
};

export const PERSISTENCE: Persistence = {
  attempts: 8,
  deadlineMs: 600_000,
  backoff: { baseMs: 1000, capMs: 60_000 },
  quotaBackoff: { baseMs: 10_000, capMs: 60_000 },
  retryAfterMsMax: 300_000,
};

/** How often what was asked of a provider, since the start. */
export type PushCounts = { requests: number; retries: number; unprocessed: number };

export type Platform = { provider: Provider; pool: Http2Pool; gate: Gate; counts: PushCounts };

export type Push = {
  target: PushTarget;
  message: PreparedMessage;
  /** The caller's. */
  signal: AbortSignal;
  /** The sender's own. */
  closing: AbortSignal;
};

type Step = Verdict | { kind: "replay" } | { kind: "wait"; ms: number };

/** A connection that ends refuses many streams: these are sent again at once, and only who has no luck time and again waits. */
const REPLAYS_AT_ONCE = 3;
const REPLAY_BACKOFF: Backoff = { baseMs: 20, capMs: 1000 };

/** Sends one push until its outcome is known. */
export async function deliver(
  platform: Platform,
  persistence: Persistence,
  clock: Clock,
  push: Push,
): Promise<Outcome> {
  const { gate, counts } = platform;
  let startedMs: number | undefined;
  let failures = 0;
  let replays = 0;
  let renewed = false;
  for (;;) {
    if (gate.isShut) await gate.pass(eitherOf(push));
    push.signal.throwIfAborted();
    push.closing.throwIfAborted();
    const triedMs = clock.elapsedMs();
    startedMs ??= triedMs;
    const step = await attempt(platform, persistence, clock, push);
    let delayMs: number;
    if (step.kind === "wait") {
      await pause(step.ms * (1 + Math.random() / 4), eitherOf(push));
      // The provider was not asked yet: neither does the attempt count nor the time.
      startedMs += clock.elapsedMs() - triedMs;
      continue;
    }
    if (step.kind === "replay") {
      replays += 1;
      counts.unprocessed += 1;
      if (replays <= REPLAYS_AT_ONCE) continue;
      delayMs = backoff(replays - REPLAYS_AT_ONCE, REPLAY_BACKOFF);
    } else if (step.kind === "retry") {
      failures += 1;
      if (failures >= persistence.attempts) return { kind: "failed", reason: step.reason };
      delayMs = backoff(failures, step.quota ? persistence.quotaBackoff : persistence.backoff);
    } else if (step.kind === "renew") {
      if (renewed) return { kind: "refused", reason: step.reason };
      renewed = true;
      continue;
    } else return step;
    if (clock.elapsedMs() + delayMs - startedMs > persistence.deadlineMs)
      return { kind: "failed", reason: step.kind === "retry" ? step.reason : "never processed" };
    await pause(delayMs, eitherOf(push));
    counts.retries += 1;
  }
}

async function attempt(
  { provider, pool, gate, counts }: Platform,
  { retryAfterMsMax }: Persistence,
  clock: Clock,
  { target, message, signal }: Push,
): Promise<Step> {
  let credential: string;
  try {
    // Waiting for what is there already would cost a turn of the loop for each push.
    const ready = provider.credential();
    credential = typeof ready === "string" ? ready : await ready;
  } catch (error) {
    if (error instanceof CredentialsRefused) return { kind: "refused", reason: error.message };
    if (error instanceof CredentialsUnavailable) return { kind: "wait", ms: error.retryMs };
    throw error;
  }
  counts.requests += 1;
  const { headers, body } = provider.request(target, message, credential);
  const exchange = await pool.request(headers, body, signal);
  if (exchange.kind === "lost") {
    if (!exchange.processed) return { kind: "replay" };
    return { kind: "retry", reason: `${provider.name}: ${exchange.reason}` };
  }
  const verdict = provider.judge(exchange);
  if (verdict.kind === "renew") provider.forget(credential);
  if (verdict.kind !== "retry") return verdict;
  const retryAfterMs = parseRetryAfter(exchange.retryAfter, clock.epochMs());
  if (retryAfterMs === undefined) return verdict;
  gate.shut(Math.min(retryAfterMs, retryAfterMsMax));
  return { kind: "retry", reason: verdict.reason };
}

function eitherOf({ signal, closing }: Push): AbortSignal {
  return AbortSignal.any([signal, closing]);
}
