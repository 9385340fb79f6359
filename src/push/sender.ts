import { type Clock, SYSTEM_CLOCK } from "../platform/clock.ts";
import { type Log } from "../platform/logger.ts";
import { Apns, type ApnsConfig } from "./apns.ts";
import {
  Delivery,
  PERSISTENCE,
  type Persistence,
  type Platform,
  type PushCounts,
} from "./delivery.ts";
import { FailureLog } from "./failure-log.ts";
import { Fcm, type FcmConfig } from "./fcm.ts";
import { Http2Pool, POOL_LIMITS, type PoolLimits } from "./http2-pool.ts";
import { type Tls } from "./http2-session.ts";
import { type Campaign, prepareMessage, type PreparedMessage } from "./message.ts";
import { type Outcome, type Provider, type PushTarget } from "./outcome.ts";
import { Gate, Pace } from "./pacing.ts";

export type { Campaign, PreparedMessage } from "./message.ts";
export type { PushCounts } from "./delivery.ts";
export type { Outcome, PushTarget } from "./outcome.ts";

export type PushConfig = {
  fcm?: FcmConfig | undefined;
  apns?: ApnsConfig | undefined;
  /** How many sends there may be at a time. */
  concurrency: number;
  /** How many requests may go out in a second, to all providers together. */
  perSecond: number;
};

export type PushSenderDeps = {
  log: Log;
  clock?: Clock;
  limits?: Partial<PoolLimits>;
  persistence?: Partial<Persistence>;
  tls?: Tls;
};

/** Sends to devices through FCM and APNs. The caller bounds how many sends there are at a time. */
export class PushSender implements AsyncDisposable {
  readonly canSend: { fcm: boolean; apns: boolean };
  readonly concurrency: number;
  readonly #clock: Clock;
  readonly #persistence: Persistence;
  readonly #failures: FailureLog;
  readonly #fcm: Platform | undefined;
  readonly #apns: Platform | undefined;
  readonly #closing = new AbortController();

  constructor({ fcm, apns, concurrency, perSecond }: PushConfig, deps: PushSenderDeps) {
    this.canSend = { fcm: fcm !== undefined, apns: apns !== undefined };
    this.concurrency = concurrency;
    const clock = deps.clock ?? SYSTEM_CLOCK;
    this.#clock = clock;
    this.#persistence = { ...PERSISTENCE, ...deps.persistence };
    this.#failures = new FailureLog(deps.log, clock);
    const pace = new Pace(perSecond, clock, this.#closing.signal);
    const platform = (provider: Provider): Platform => ({
      provider,
      pool: new Http2Pool(provider.origin, {
        log: deps.log,
        limits: { ...POOL_LIMITS, ...deps.limits },
        tls: deps.tls,
      }),
      gate: new Gate(clock),
      pace,
      counts: { requests: 0, retries: 0, unprocessed: 0 },
    });
    this.#fcm = fcm && platform(new Fcm(fcm, clock, deps.log));
    this.#apns = apns && platform(new Apns(apns, clock));
  }

  get counts(): { fcm: PushCounts | undefined; apns: PushCounts | undefined } {
    return { fcm: this.#fcm?.counts, apns: this.#apns?.counts };
  }

  /** Everything that is the same for all devices. */
  prepare(campaign: Campaign): PreparedMessage {
    return prepareMessage(campaign, this.#clock.epochMs());
  }

  /**
   * Rejects only with the signal's reason, when it is aborted before the outcome is known. A request that is out is waited for all the same,
   * because its outcome counts.
   */
  async send(target: PushTarget, message: PreparedMessage, signal: AbortSignal): Promise<Outcome> {
    const platform = target.platform === "fcm" ? this.#fcm : this.#apns;
    if (platform === undefined)
      return { kind: "refused", reason: `there are no credentials for ${target.platform}` };
    const known = platform.provider.precheck(target, message);
    if (known !== undefined) return known;
    const push = { target, message, signal, closing: this.#closing.signal };
    const outcome = await new Delivery(platform, this.#persistence, this.#clock, push).run();
    if (outcome.kind === "failed") this.#failures.tell(target.platform, outcome.reason);
    return outcome;
  }

  /** Ends the waiting of those that are still to be sent, and loses what is in flight. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new Error("the sender was closed"));
    await Promise.all([
      this.#fcm?.pool[Symbol.asyncDispose](),
      this.#apns?.pool[Symbol.asyncDispose](),
    ]);
  }
}
