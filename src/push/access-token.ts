import { SignJWT } from "jose";
import { Type } from "typebox";
import { Value } from "typebox/value";

import { type Clock } from "../platform/clock.ts";
import { parseJson } from "../platform/json.ts";
import { type Log } from "../platform/logger.ts";
import { type Backoff, backoff } from "./backoff.ts";
import { serviceAccountKey, type ServiceAccount } from "./credentials.ts";
import { asCode, CredentialsRefused, CredentialsUnavailable } from "./provider.ts";

const SCOPE = "https://www.googleapis.com/auth/firebase.messaging";
const GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const FETCH_MS = 10_000;
const ANSWER_BYTES_MAX = 65_536;
/** Seconds before its expiry at which a token is replaced; half its lifetime if that is shorter. */
const RESERVE_S = 300;
/** Delays after an outage of the endpoint during which every caller is refused at once. */
const OUTAGE_REST: Backoff = { baseMs: 1000, capMs: 30_000 };
/** Delay after a refusal: short, because the account may be repaired at any time. */
const REFUSAL_REST_MS = 1000;

const Granted = Type.Object({
  access_token: Type.String({ minLength: 1, maxLength: 16_384, pattern: "^[\\x21-\\x7e]+$" }),
  expires_in: Type.Number({ minimum: 1 }),
});
const Denied = Type.Object({ error: Type.String() });

/** The endpoint could not issue a token for now. */
class Outage extends Error {
  override readonly name = "Outage";
}

/** Access tokens of a Google service account. All callers share one token and the request for it. */
export class AccessTokens {
  readonly #account: ServiceAccount;
  readonly #key: ReturnType<typeof serviceAccountKey>;
  readonly #clock: Clock;
  readonly #log: Log;
  #token: string | undefined;
  #staleMs = 0;
  #fetching: Promise<string> | undefined;
  #failure: { error: unknown; untilMs: number } | undefined;
  /** Number of outages without a token between them. */
  #outages = 0;

  constructor(account: ServiceAccount, clock: Clock, log: Log) {
    this.#account = account;
    this.#key = serviceAccountKey(account.private_key);
    this.#clock = clock;
    this.#log = log;
  }

  /** Rejects with CredentialsRefused or CredentialsUnavailable. */
  get(): string | Promise<string> {
    const nowMs = this.#clock.elapsedMs();
    if (this.#token !== undefined && nowMs < this.#staleMs) return this.#token;
    if (this.#failure !== undefined && nowMs < this.#failure.untilMs)
      return Promise.reject(thrown(this.#failure, nowMs));
    this.#fetching ??= this.#renew().finally(() => (this.#fetching = undefined));
    return this.#fetching;
  }

  /** Drops the token, unless it was replaced already. */
  forget(token: string): void {
    if (this.#token === token) this.#token = undefined;
  }

  async #renew(): Promise<string> {
    const askedMs = this.#clock.elapsedMs();
    try {
      const { access_token, expires_in } = await this.#fetch();
      const reserveS = Math.min(RESERVE_S, expires_in / 2);
      this.#staleMs = askedMs + (expires_in - reserveS) * 1000;
      this.#token = access_token;
      this.#failure = undefined;
      this.#outages = 0;
      return access_token;
    } catch (error) {
      throw this.#rest(error);
    }
  }

  #rest(error: unknown): unknown {
    const nowMs = this.#clock.elapsedMs();
    const isOutage = error instanceof Outage;
    this.#outages = isOutage ? this.#outages + 1 : 0;
    const restMs = isOutage ? backoff(this.#outages, OUTAGE_REST) : REFUSAL_REST_MS;
    this.#failure = { error, untilMs: nowMs + restMs };
    this.#log.warn({ err: error, restMs }, "fetching an access token failed");
    return thrown(this.#failure, nowMs);
  }

  async #fetch(): Promise<Type.Static<typeof Granted>> {
    const body = new URLSearchParams({ grant_type: GRANT, assertion: await this.#assertion() });
    const { status, text } = await post(this.#account.token_uri, body);
    const answer = parseJson(text);
    if (status === 200 && Value.Check(Granted, answer)) return answer;
    const code = Value.Check(Denied, answer) ? asCode(answer.error) : undefined;
    const reason = `the token endpoint answered ${status} ${code ?? ""}`.trimEnd();
    if (status >= 400 && status < 500 && status !== 408 && status !== 429)
      throw new CredentialsRefused(reason);
    throw new Outage(reason);
  }

  async #assertion(): Promise<string> {
    const nowS = Math.floor(this.#clock.epochMs() / 1000);
    return await new SignJWT({ scope: SCOPE })
      .setProtectedHeader({ alg: "RS256", typ: "JWT" })
      .setIssuer(this.#account.client_email)
      .setAudience(this.#account.token_uri)
      .setIssuedAt(nowS)
      .setExpirationTime(nowS + 3600)
      .sign(this.#key);
  }
}

function thrown({ error, untilMs }: { error: unknown; untilMs: number }, nowMs: number): unknown {
  return error instanceof Outage
    ? new CredentialsUnavailable(error.message, untilMs - nowMs)
    : error;
}

async function post(url: string, body: URLSearchParams): Promise<{ status: number; text: string }> {
  const signal = AbortSignal.timeout(FETCH_MS);
  try {
    const response = await fetch(url, { method: "POST", body, redirect: "manual", signal });
    return { status: response.status, text: await readText(response) };
  } catch (error) {
    throw new Outage("the token endpoint did not answer", { cause: error });
  }
}

async function readText(response: Response): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length;
    if (bytes > ANSWER_BYTES_MAX) throw new Error("the token endpoint's answer is too large");
    text += decoder.decode(chunk, { stream: true });
  }
  return text;
}
