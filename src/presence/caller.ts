import { type Clients } from "../platform/http/clients.ts";
import { type Clock } from "../platform/clock.ts";
import { AppError } from "../platform/errors.ts";
import { type Log } from "../platform/logger.ts";
import { Access, type Claim, parseClaim } from "./schema.ts";
import { type UserTokens } from "./user-tokens.ts";

/**
 * Identity of a connection; without a `userid` it is anonymous, admitted by a trusted proxy.
 * `expiresAt` is when its token expires, in epoch ms.
 */
export type Caller = Partial<Claim> & { expiresAt?: number };

const ANONYMOUS: Caller = {};
const WARN_EVERY_MS = 600_000;

export type CallersDeps = { clients: Clients; tokens: UserTokens; clock: Clock; log: Log };

/** Identifies callers by the claim that a trusted proxy added, or by a user token. */
export class Callers {
  readonly #clients: Clients;
  readonly #tokens: UserTokens;
  readonly #clock: Clock;
  readonly #log: Log;
  #warnedMs = Number.NEGATIVE_INFINITY;

  constructor({ clients, tokens, clock, log }: CallersDeps) {
    this.#clients = clients;
    this.#tokens = tokens;
    this.#clock = clock;
    this.#log = log;
  }

  /**
   * Returns a caller that may watch. Throws 400 for a bad claim, 401 if a valid token is missing.
   */
  async watcher(request: Request): Promise<Caller> {
    const isTrusted = this.#clients.isProxied(request);
    const claim = request.headers.get("x-user-claim");
    if (isTrusted && claim !== null) return parseClaim(claim);
    if (claim !== null) this.#warn(request);
    const token = tokenOf(request);
    if (token !== undefined) return await this.#tokens.verify(token, this.#clock.epochMs());
    // The proxy has authorized the request.
    if (isTrusted) return ANONYMOUS;
    throw new AppError("unauthorized", "missing token");
  }

  /**
   * Returns a caller that may ping, which must be a named user. Throws 400 without a claim, 401 if
   * a valid token is missing.
   */
  async user(request: Request): Promise<Claim> {
    const { userid, clientid = "" } = await this.watcher(request);
    if (userid === undefined) throw new AppError("invalid", "missing X-User-Claim");
    return { userid, clientid };
  }

  /** Warns that a proxy is missing in TRUSTED_PROXIES, or that somebody forges claims. */
  #warn(request: Request): void {
    const nowMs = this.#clock.elapsedMs();
    if (nowMs - this.#warnedMs < WARN_EVERY_MS) return;
    this.#warnedMs = nowMs;
    const peer = this.#clients.peer(request);
    this.#log.warn({ peer }, "an X-User-Claim was ignored: its sender is not in TRUSTED_PROXIES");
  }
}

/**
 * Reads the token from the header or the query: browsers cannot set headers of an EventSource or a
 * WebSocket.
 */
function tokenOf(request: Request): string | undefined {
  const header = request.headers.get("authorization");
  if (header !== null && /^bearer /i.test(header)) return header.slice("bearer ".length);
  return Access.of(request).token;
}
