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
import { backoff, type Backoff, type Gate, type Pace, parseRetryAfter, pause } from "./pacing.ts";

export type Persistence = {
  /** Of times that a provider may have seen the push and did not take it. */
  attempts: number;
  /**
   * Refusals of a push until it counts as refused: providers sometimes refuse a single request by
   * mistake.
   */
  refusals: number;
  /** Of all that a push waits for but its turn. */
  deadlineMs: number;
  backoff: Backoff;
  /** For a quota that is used up, where the provider does not say for how long. */
  quotaBackoff: Backoff;
  /** A provider that asks for more is asked again after this. */
  retryAfterMsMax: number;
};

export const PERSISTENCE: Persistence = {
  attempts: 8,
  refusals: 6,
  deadlineMs: 600_000,
  backoff: { baseMs: 1000, capMs: 60_000 },
  quotaBackoff: { baseMs: 10_000, capMs: 60_000 },
  retryAfterMsMax: 300_000,
};

/** How often what was asked of a provider, since the start. */
export type PushCounts = { requests: number; retries: number; unprocessed: number };

export type Platform = {
  provider: Provider;
  pool: Http2Pool;
  gate: Gate;
  /** One for all platforms. */
  pace: Pace;
  counts: PushCounts;
};

export type Push = {
  target: PushTarget;
  message: PreparedMessage;
  /** The caller's. */
  signal: AbortSignal;
  /** The sender's own. */
  closing: AbortSignal;
};

type Step =
  | (Verdict & { afterMs?: number })
  | { kind: "replay" }
  | { kind: "wait"; reason: string; ms: number };

/** A connection that ends refuses many streams: these are sent again at once, and only who has no luck time and again waits. */
const REPLAYS_AT_ONCE = 3;
const REPLAY_BACKOFF: Backoff = { baseMs: 20, capMs: 1000 };

/** One push, sent until its outcome is known. */
export class Delivery {
  readonly #platform: Platform;
  readonly #persistence: Persistence;
  readonly #clock: Clock;
  readonly #push: Push;
  #untilMs: number;
  #failures = 0;
  #replays = 0;
  #wasRenewed = false;
  #refusals = 0;
  /** Number of pushes that the provider had accepted when it last refused this one. */
  #acceptedBefore = Number.POSITIVE_INFINITY;
  #wasLimited = false;
  /** Why it is still on its way. */
  #problem = "never processed";

  constructor(platform: Platform, persistence: Persistence, clock: Clock, push: Push) {
    this.#platform = platform;
    this.#persistence = persistence;
    this.#clock = clock;
    this.#push = push;
    this.#untilMs = clock.elapsedMs() + persistence.deadlineMs;
  }

  async run(): Promise<Outcome> {
    const { attempts, refusals, backoff: usual, quotaBackoff } = this.#persistence;
    const { counts } = this.#platform;
    for (;;) {
      const step = await this.#attempt();
      let delayMs: number;
      if (step.kind === "replay") {
        this.#replays += 1;
        counts.unprocessed += 1;
        if (this.#replays <= REPLAYS_AT_ONCE) continue;
        delayMs = backoff(this.#replays - REPLAYS_AT_ONCE, REPLAY_BACKOFF);
      } else if (step.kind === "retry") {
        this.#failures += 1;
        if (this.#failures >= attempts) return { kind: "failed", reason: step.reason };
        this.#problem = step.reason;
        delayMs = backoff(this.#failures, step.limited ? quotaBackoff : usual);
        delayMs = Math.max(delayMs, step.afterMs ?? 0);
      } else if (step.kind === "renew" && !this.#wasRenewed) {
        this.#wasRenewed = true;
        continue;
      } else if (step.kind === "renew" || step.kind === "refused") {
        this.#refusals += 1;
        delayMs = backoff(this.#refusals, usual);
        if (this.#refusals >= refusals || delayMs > this.#leftMs) return this.#refused(step.reason);
        this.#acceptedBefore = this.#platform.gate.acceptedCount;
        this.#problem = step.reason;
      } else if (step.kind === "wait") {
        this.#problem = step.reason;
        delayMs = step.ms;
      } else return step;
      if (delayMs > this.#leftMs) return { kind: "failed", reason: this.#problem };
      await pause(delayMs, this.#stop());
      // Who waited for a credential had not asked the provider.
      if (step.kind !== "wait") counts.retries += 1;
    }
  }

  /**
   * Returns the outcome of a push that was refused each time: "failed" if the provider accepted
   * others meanwhile, so that only this push is at fault.
   */
  #refused(reason: string): Outcome {
    const { gate } = this.#platform;
    return { kind: gate.acceptedCount > this.#acceptedBefore ? "failed" : "refused", reason };
  }

  get #leftMs(): number {
    return this.#untilMs - this.#clock.elapsedMs();
  }

  #stop(): AbortSignal {
    return AbortSignal.any([this.#push.signal, this.#push.closing]);
  }

  async #attempt(): Promise<Step> {
    try {
      return await this.#sendInTurn();
    } catch (error) {
      if (error instanceof CredentialsRefused) return { kind: "refused", reason: error.message };
      if (!(error instanceof CredentialsUnavailable)) throw error;
      const ms = error.retryMs * (1 + Math.random() / 4);
      return { kind: "wait", reason: error.message, ms };
    }
  }

  /** Waits until all that the push needs is there at the same time, its turn last, and sends it in that moment. */
  async #sendInTurn(): Promise<Step> {
    const { provider, pool, gate, pace } = this.#platform;
    const { signal, closing } = this.#push;
    for (let hasTurn = false; ;) {
      signal.throwIfAborted();
      closing.throwIfAborted();
      if (this.#leftMs <= 0) return { kind: "failed", reason: this.#problem };
      // Waiting for what is there already would cost a turn of the loop for each push.
      const ready = gate.isShut ? gate.pass(this.#stop()) : provider.credential();
      if (typeof ready !== "string") await ready;
      else if (!pool.hasRoom) {
        const problem = await pool.room(signal, this.#leftMs);
        if (problem !== undefined) return { kind: "retry", reason: `${provider.name}: ${problem}` };
      } else {
        const turn = hasTurn ? undefined : pace.turn(signal);
        if (turn === undefined) return await this.#send(ready);
        const askedMs = this.#clock.elapsedMs();
        await turn;
        this.#untilMs += this.#clock.elapsedMs() - askedMs;
        hasTurn = true;
        continue;
      }
      hasTurn = false;
    }
  }

  async #send(credential: string): Promise<Step> {
    const { provider, pool, gate, counts } = this.#platform;
    const { target, message } = this.#push;
    counts.requests += 1;
    const { headers, body } = provider.request(target, message, credential);
    const exchange = await pool.request(headers, body);
    if (exchange.kind === "lost") {
      if (!exchange.processed) return { kind: "replay" };
      return { kind: "retry", reason: `${provider.name}: ${exchange.reason}` };
    }
    const verdict = provider.judge(exchange);
    if (verdict.kind === "sent") gate.served();
    if (isOutcome(verdict)) gate.acceptedCount += 1;
    if (verdict.kind === "renew") provider.forget(credential);
    if (verdict.kind !== "retry") return verdict;
    const isOwn = this.#isOwn(verdict.limited);
    const askedMs = parseRetryAfter(exchange.retryAfter, this.#clock.epochMs());
    if (askedMs === undefined) return verdict;
    const { reason } = verdict;
    const afterMs = Math.min(askedMs, this.#persistence.retryAfterMsMax);
    if (isOwn) return { kind: "retry", reason, afterMs };
    gate.shut(afterMs);
    return { kind: "retry", reason };
  }

  /** Whether it is this device alone that the provider wants less for. */
  #isOwn(limited: "device" | "unknown" | undefined): boolean {
    const { gate } = this.#platform;
    if (limited !== "unknown") return limited === "device";
    if (!this.#wasLimited) gate.limited();
    this.#wasLimited = true;
    return !gate.isProviderLimited;
  }
}

function isOutcome({ kind }: Verdict): boolean {
  return kind === "sent" || kind === "invalid_token" || kind === "failed";
}
