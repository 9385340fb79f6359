import { SignJWT } from "jose";
import { Type } from "typebox";
import { Value } from "typebox/value";

import { type Clock } from "../platform/clock.ts";
import { UsageError } from "../platform/errors.ts";
import { parseJson } from "../platform/bodies/json.ts";
import { apnsKey } from "./credentials.ts";
import { type Answer } from "./http2-session.ts";
import { type PreparedMessage } from "./message.ts";
import {
  asCode,
  type Outcome,
  type Provider,
  type PushRequest,
  type PushTarget,
  type Verdict,
} from "./outcome.ts";

export type ApnsConfig = {
  /** The .p8 file's text. */
  key: string;
  keyId: string;
  teamId: string;
  topic: string;
  baseUrl: string;
};

/** Apple takes a token for an hour and wants no new one within 20 minutes. */
const JWT_MS = 40 * 60_000;
/** A clock that is a little fast must not make tokens of the future. */
const CLOCK_SLACK_S = 30;
/** It becomes part of the path. */
const TOKEN = /^[A-Za-z0-9_-]{1,400}$/;

/** What becomes part of a header or of the bearer. */
const NAME = /^[A-Za-z0-9._-]{1,255}$/;

const REFUSED = new Set([
  "BadCertificate",
  "BadCertificateEnvironment",
  "BadTopic",
  "MissingTopic",
  "PayloadTooLarge",
  "TopicDisallowed",
]);

const Rejection = Type.Object({
  reason: Type.String(),
  timestamp: Type.Optional(Type.Number()),
});

/** Apple's push service, with tokens signed by a .p8 key. */
export class Apns implements Provider {
  readonly name = "apns";
  readonly origin: string;
  readonly #config: ApnsConfig;
  readonly #clock: Clock;
  readonly #key: ReturnType<typeof apnsKey>;
  readonly #pathPrefix: string;
  readonly #fixed: Record<string, string>;
  #jwt: { text: string; madeMs: number } | undefined;
  #signing: Promise<string> | undefined;

  constructor(config: ApnsConfig, clock: Clock) {
    const { origin, pathname } = new URL(config.baseUrl);
    this.origin = origin;
    this.#config = config;
    this.#clock = clock;
    this.#key = apnsKey(config.key);
    for (const name of ["keyId", "teamId", "topic"] as const)
      if (!NAME.test(config[name])) throw new UsageError(`the ${name} of APNs is not valid`);
    this.#pathPrefix = `${pathname.replace(/\/+$/, "")}/3/device/`;
    this.#fixed = {
      ":method": "POST",
      "apns-topic": config.topic,
      "apns-push-type": "alert",
      "apns-priority": "10",
    };
  }

  precheck({ token }: PushTarget, { apns }: PreparedMessage): Outcome | undefined {
    if (apns.problem !== undefined) return { kind: "refused", reason: apns.problem };
    if (!TOKEN.test(token)) return { kind: "invalid_token", reason: "not a token of APNs" };
    return undefined;
  }

  credential(): string | Promise<string> {
    if (this.#jwt !== undefined && this.#clock.elapsedMs() - this.#jwt.madeMs < JWT_MS)
      return this.#jwt.text;
    this.#signing ??= this.#sign().finally(() => (this.#signing = undefined));
    return this.#signing;
  }

  forget(credential: string): void {
    if (this.#jwt?.text === credential) this.#jwt = undefined;
  }

  request({ token, apnsId }: PushTarget, message: PreparedMessage, jwt: string): PushRequest {
    return {
      headers: {
        ...this.#fixed,
        ":path": this.#pathPrefix + token,
        authorization: `bearer ${jwt}`,
        "apns-id": apnsId,
        "apns-collapse-id": message.collapseId,
        "apns-expiration": String(message.expiresS),
      },
      body: message.apns.body,
    };
  }

  judge({ status, text }: Answer): Verdict {
    if (status === 200) return { kind: "sent" };
    const parsed = parseJson(text);
    const rejection = Value.Check(Rejection, parsed) ? parsed : undefined;
    const code = asCode(rejection?.reason) ?? "";
    const reason = `APNs ${status} ${code}`.trimEnd();
    if (status === 410) {
      const timestamp = rejection?.timestamp;
      return { kind: "invalid_token", reason, ...(timestamp !== undefined && { timestamp }) };
    }
    if (code === "TooManyRequests") return { kind: "retry", reason, limited: "device" };
    if (status === 429 || status >= 500) return { kind: "retry", reason };
    if (code === "ExpiredProviderToken") return { kind: "renew", reason };
    // A token for another topic may be right, and the topic that is configured wrong.
    if (code === "BadDeviceToken") return { kind: "invalid_token", reason };
    if (status === 403 || REFUSED.has(code)) return { kind: "refused", reason };
    return { kind: "failed", reason };
  }

  async #sign(): Promise<string> {
    const madeMs = this.#clock.elapsedMs();
    const text = await new SignJWT()
      .setProtectedHeader({ alg: "ES256", kid: this.#config.keyId })
      .setIssuer(this.#config.teamId)
      .setIssuedAt(Math.floor(this.#clock.epochMs() / 1000) - CLOCK_SLACK_S)
      .sign(this.#key);
    this.#jwt = { text, madeMs };
    return text;
  }
}
