import { type Clock, SYSTEM_CLOCK } from "../platform/clock.ts";
import { perProvider, type ProviderName } from "../platform/config/push-config.ts";
import { type Log } from "../platform/logger.ts";
import {
  Delivery,
  PERSISTENCE,
  type Persistence,
  type ProviderChannel,
  type PushCounts,
} from "./delivery.ts";
import { FailureLog } from "./failure-log.ts";
import { Http2Pool, POOL_LIMITS, type PoolLimits } from "./http2-pool.ts";
import { type Tls } from "./http2-session.ts";
import { type CampaignMessage, shareMessage } from "./message.ts";
import { type Outcome } from "./outcome.ts";
import { type PreparedRequest, type Provider, type PushTarget } from "./provider.ts";
import { ProviderPause } from "./provider-pause.ts";
import { SendRate } from "./send-rate.ts";

/** Providers that have credentials. */
export type Providers = Partial<Record<ProviderName, Provider | undefined>>;
/** A message in the form of each provider that has credentials. */
export type PreparedMessage = Record<ProviderName, PreparedRequest | undefined>;

export type SenderOptions = {
  providers: Providers;
  /** Limit of sends at a time, which the caller keeps. */
  concurrency: number;
  /** Limit of requests per second, to all providers together. */
  perSecond: number;
};

export type SenderDeps = {
  log: Log;
  clock?: Clock;
  limits?: Partial<PoolLimits>;
  persistence?: Partial<Persistence>;
  tls?: Tls;
};

/** Sends to devices through their providers. */
export class PushSender implements AsyncDisposable {
  readonly concurrency: number;
  readonly #clock: Clock;
  readonly #persistence: Persistence;
  readonly #failures: FailureLog;
  readonly #channels: Record<ProviderName, ProviderChannel | undefined>;
  readonly #closing = new AbortController();

  constructor({ providers, concurrency, perSecond }: SenderOptions, deps: SenderDeps) {
    this.concurrency = concurrency;
    const clock = deps.clock ?? SYSTEM_CLOCK;
    this.#clock = clock;
    this.#persistence = { ...PERSISTENCE, ...deps.persistence };
    this.#failures = new FailureLog(deps.log, clock);
    const rate = new SendRate(perSecond, clock, this.#closing.signal);
    const channel = (provider: Provider): ProviderChannel => ({
      provider,
      pool: new Http2Pool(provider.origin, {
        log: deps.log,
        limits: { ...POOL_LIMITS, ...deps.limits },
        tls: deps.tls,
      }),
      pause: new ProviderPause(clock),
      rate,
      counts: { requests: 0, retries: 0, unprocessed: 0 },
    });
    this.#channels = perProvider((name) => providers[name] && channel(providers[name]));
  }

  get canSend(): Record<ProviderName, boolean> {
    return perProvider((name) => this.#channels[name] !== undefined);
  }

  get counts(): Record<ProviderName, PushCounts | undefined> {
    return perProvider((name) => this.#channels[name]?.counts);
  }

  /** Builds the parts of the requests that all devices share. */
  prepare(message: CampaignMessage): PreparedMessage {
    const shared = shareMessage(message, this.#clock.epochMs());
    return perProvider((name) => this.#channels[name]?.provider.prepare(shared));
  }

  /**
   * Resolves with the outcome. Rejects only with the signal's reason, when it is aborted before the
   * outcome is known. A request that is on its way is awaited nevertheless, because its outcome
   * counts.
   */
  async send(target: PushTarget, message: PreparedMessage, signal: AbortSignal): Promise<Outcome> {
    const channel = this.#channels[target.provider];
    const prepared = message[target.provider];
    if (channel === undefined || prepared === undefined)
      return { kind: "refused", reason: `there are no credentials for ${target.provider}` };
    const known = prepared.precheck(target);
    if (known !== undefined) return known;
    const push = { target, prepared, signal, closing: this.#closing.signal };
    const outcome = await new Delivery(channel, this.#persistence, this.#clock, push).run();
    if (outcome.kind === "failed") this.#failures.warn(target.provider, outcome.reason);
    return outcome;
  }

  /** Rejects the sends that wait, and abandons the requests in flight. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new Error("the sender was closed"));
    const channels = Object.values(this.#channels);
    await Promise.all(channels.map(async (channel) => await channel?.pool[Symbol.asyncDispose]()));
  }
}
