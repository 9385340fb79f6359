import { SignJWT } from "jose";
import { Type } from "typebox";
import { Value } from "typebox/value";

import { type Clock } from "../platform/clock.ts";
import { type ProviderSettings } from "../platform/config/push-config.ts";
import { variableText } from "../platform/config/env-file.ts";
import { UsageError } from "../platform/errors.ts";
import { parseJson } from "../platform/json.ts";
import { apnsKey } from "./credentials.ts";
import { type Answer } from "./http2-session.ts";
import { type SharedMessage, sizeProblem } from "./message.ts";
import { type Verdict } from "./outcome.ts";
import { asCode, type PreparedRequest, type Provider } from "./provider.ts";

export type ApnsOptions = {
  /** Text of the .p8 file. */
  key: string;
  keyId: string;
  teamId: string;
  topic: string;
  baseUrl: string;
};

/** Age at which a token is replaced: Apple accepts it for 60 minutes, and no new one within 20. */
const JWT_MS = 40 * 60_000;
/** Tokens are dated back by this, as Apple refuses those of a clock that is ahead. */
const CLOCK_SLACK_S = 30;
/** Pattern of device tokens, which become part of the path. */
const TOKEN = /^[A-Za-z0-9_-]{1,400}$/;

/** Pattern of names that become part of a header or of the JWT. */
const NAME = /^[A-Za-z0-9._-]{1,255}$/;

/** Reasons for which Apple would refuse every device. */
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

/** Reads the .p8 key. Throws UsageError if a setting is not usable. */
export async function openApns(
  settings: NonNullable<ProviderSettings["apns"]>,
  clock: Clock,
): Promise<Apns> {
  const key = await variableText("APNS_KEY", settings.key, /^\s*-----BEGIN/);
  return new Apns({ ...settings, key }, clock);
}

/** Apple's push service, with tokens signed by a .p8 key. */
export class Apns implements Provider {
  readonly origin: string;
  readonly #options: ApnsOptions;
  readonly #clock: Clock;
  readonly #key: ReturnType<typeof apnsKey>;
  readonly #pathPrefix: string;
  readonly #fixed: Record<string, string>;
  #jwt: { text: string; madeMs: number } | undefined;
  #signing: Promise<string> | undefined;

  constructor(options: ApnsOptions, clock: Clock) {
    const { origin, pathname } = new URL(options.baseUrl);
    this.origin = origin;
    this.#options = options;
    this.#clock = clock;
    this.#key = apnsKey(options.key);
    for (const name of ["keyId", "teamId", "topic"] as const)
      if (!NAME.test(options[name])) throw new UsageError(`the ${name} of APNs is not valid`);
    this.#pathPrefix = `${pathname.replace(/\/+$/, "")}/3/device/`;
    this.#fixed = {
      ":method": "POST",
      "apns-topic": options.topic,
      "apns-push-type": "alert",
      "apns-priority": "10",
    };
  }

  prepare({ message, collapseId, expiresS, data }: SharedMessage): PreparedRequest {
    const { title, body: text, imageUrl } = message;
    const aps = {
      alert: { title, body: text },
      sound: "default",
      // Lets the app's extension fetch the image before the alert is shown.
      ...(imageUrl && { "mutable-content": 1 }),
    };
    const payload = JSON.stringify({ aps, ...data });
    const problem = sizeProblem("APNs", payload);
    const body = Buffer.from(payload);
    const fixed = {
      ...this.#fixed,
      "apns-collapse-id": collapseId,
      "apns-expiration": String(expiresS),
    };
    return {
      precheck: ({ token }) => {
        if (problem !== undefined) return { kind: "refused", reason: problem };
        if (!TOKEN.test(token)) return { kind: "invalid_token", reason: "not a token of APNs" };
        return undefined;
      },
      request: ({ token, messageId }, jwt) => ({
        headers: {
          ...fixed,
          ":path": this.#pathPrefix + token,
          authorization: `bearer ${jwt}`,
          "apns-id": messageId,
        },
        body,
      }),
    };
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
    // DeviceTokenNotForTopic keeps the token, because the configured topic may be the wrong one.
    if (code === "BadDeviceToken") return { kind: "invalid_token", reason };
    if (status === 403 || REFUSED.has(code)) return { kind: "refused", reason };
    return { kind: "failed", reason };
  }

  async #sign(): Promise<string> {
    const madeMs = this.#clock.elapsedMs();
    const text = await new SignJWT()
      .setProtectedHeader({ alg: "ES256", kid: this.#options.keyId })
      .setIssuer(this.#options.teamId)
      .setIssuedAt(Math.floor(this.#clock.epochMs() / 1000) - CLOCK_SLACK_S)
      .sign(this.#key);
    this.#jwt = { text, madeMs };
    return text;
  }
}
