import { type Clock } from "../platform/clock.ts";
import { backoff, type Backoff, parseRetryAfter, pause } from "./backoff.ts";
import { type Http2Pool } from "./http2-pool.ts";
import { type Outcome, type Verdict } from "./outcome.ts";
import {
  CredentialsRefused,
  CredentialsUnavailable,
  type PreparedRequest,
  type Provider,
  type PushTarget,
} from "./provider.ts";
import { type ProviderPause } from "./provider-pause.ts";
import { type SendRate } from "./send-rate.ts";

export type Persistence = {
  /** Attempts that the provider may have seen and did not accept. */
  attempts: number;
  /**
   * Refusals of a push until it counts as refused: providers sometimes refuse a single request by
   * mistake.
   */
  refusals: number;
  /** Time for all that a push waits for, except for its turn by the send rate. */
  deadlineMs: number;
  backoff: Backoff;
  /** Delays for an exhausted quota if the provider does not say how long to wait. */
  quotaBackoff: Backoff;
  /** Upper bound of the delay that a provider asks for. */
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

/** Requests to a provider since the start, for metrics. */
export type PushCounts = { requests: number; retries: number; unprocessed: number };

/** Everything that the pushes to one provider share. */
export type ProviderChannel = {
  provider: Provider;
  pool: Http2Pool;
  pause: ProviderPause;
  /** One for all providers. */
  rate: SendRate;
  counts: PushCounts;
};

export type Push = {
  target: PushTarget;
  prepared: PreparedRequest;
  /** Signal of the caller. */
  signal: AbortSignal;
  /** Signal of the sender, which is being closed. */
  closing: AbortSignal;
};

type Step =
  | (Verdict & { afterMs?: number })
  | { kind: "replay" }
  | { kind: "wait"; reason: string; ms: number };

/** Retries refused streams at once this often, then backs off: a connection that ends refuses many. */
const REPLAYS_AT_ONCE = 3;
const REPLAY_BACKOFF: Backoff = { baseMs: 20, capMs: 1000 };

/** Sends one push until its outcome is known. */
export class Delivery {
  readonly #channel: ProviderChannel;
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
  /** Reason of the last attempt that did not settle it. */
  #problem = "never processed";

  constructor(channel: ProviderChannel, persistence: Persistence, clock: Clock, push: Push) {
    this.#channel = channel;
    this.#persistence = persistence;
    this.#clock = clock;
    this.#push = push;
    this.#untilMs = clock.elapsedMs() + persistence.deadlineMs;
  }

  async run(): Promise<Outcome> {
    const { attempts, refusals, backoff: usual, quotaBackoff } = this.#persistence;
    const { counts } = this.#channel;
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
        this.#acceptedBefore = this.#channel.pause.acceptedCount;
        this.#problem = step.reason;
      } else if (step.kind === "wait") {
        this.#problem = step.reason;
        delayMs = step.ms;
      } else return step;
      if (delayMs > this.#leftMs) return { kind: "failed", reason: this.#problem };
      await pause(delayMs, this.#stop());
      // A push that waited for a credential has not reached the provider.
      if (step.kind !== "wait") counts.retries += 1;
    }
  }

  /**
   * Returns the outcome of a push that was refused each time: "failed" if the provider accepted
   * others meanwhile, so that only this push is at fault.
   */
  #refused(reason: string): Outcome {
    const { acceptedCount } = this.#channel.pause;
    return { kind: acceptedCount > this.#acceptedBefore ? "failed" : "refused", reason };
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

  /**
   * Waits for the end of a pause, a credential, room on a connection and, last, its turn. Sends at
   * once, while all of them hold.
   */
  async #sendInTurn(): Promise<Step> {
    const { provider, pool, pause: providerPause, rate } = this.#channel;
    const { target, signal, closing } = this.#push;
    for (let hasTurn = false; ;) {
      signal.throwIfAborted();
      closing.throwIfAborted();
      if (this.#leftMs <= 0) return { kind: "failed", reason: this.#problem };
      // Awaiting a value that is there already would cost each push a turn of the event loop.
      const ready = providerPause.isActive
        ? providerPause.pass(this.#stop())
        : provider.credential();
      if (typeof ready !== "string") await ready;
      else if (!pool.hasRoom) {
        const problem = await pool.room(signal, this.#leftMs);
        if (problem !== undefined)
          return { kind: "retry", reason: `${target.provider}: ${problem}` };
      } else {
        const turn = hasTurn ? undefined : rate.turn(signal);
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
    const { provider, pool, pause: providerPause, counts } = this.#channel;
    const { target, prepared } = this.#push;
    counts.requests += 1;
    const { headers, body } = prepared.request(target, credential);
    const exchange = await pool.request(headers, body);
    if (exchange.kind === "lost") {
      if (!exchange.processed) return { kind: "replay" };
      return { kind: "retry", reason: `${target.provider}: ${exchange.reason}` };
    }
    const verdict = provider.judge(exchange);
    if (verdict.kind === "sent") providerPause.countServed();
    if (isOutcome(verdict)) providerPause.acceptedCount += 1;
    if (verdict.kind === "renew") provider.forget(credential);
    if (verdict.kind !== "retry") return verdict;
    const isOwn = this.#isOwn(verdict.limited);
    const askedMs = parseRetryAfter(exchange.retryAfter, this.#clock.epochMs());
    if (askedMs === undefined) return verdict;
    const { reason } = verdict;
    const afterMs = Math.min(askedMs, this.#persistence.retryAfterMsMax);
    if (isOwn) return { kind: "retry", reason, afterMs };
    providerPause.extend(afterMs);
    return { kind: "retry", reason };
  }

  /** Returns whether the provider limits this device alone. */
  #isOwn(limited: "device" | "unknown" | undefined): boolean {
    const { pause: providerPause } = this.#channel;
    if (limited !== "unknown") return limited === "device";
    if (!this.#wasLimited) providerPause.countLimited();
    this.#wasLimited = true;
    return !providerPause.isProviderLimited;
  }
}

/** Returns whether the provider judged this push by itself. */
function isOutcome({ kind }: Verdict): boolean {
  return kind === "sent" || kind === "invalid_token" || kind === "failed";
}
