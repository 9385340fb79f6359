import { Type } from "typebox";
import { Value } from "typebox/value";

import { type Clock } from "../platform/clock.ts";
import { type ProviderSettings } from "../platform/config/push-config.ts";
import { variableText } from "../platform/config/env-file.ts";
import { parseJson } from "../platform/json.ts";
import { DEVICE_PLATFORM } from "../platform/device-platforms.ts";
import { type Log } from "../platform/logger.ts";
import { AccessTokens } from "./access-token.ts";
import { parseServiceAccount, type ServiceAccount } from "./credentials.ts";
import { fcmBodies } from "./fcm-message.ts";
import { type Answer } from "./http2-session.ts";
import { type SharedMessage } from "./message.ts";
import { type Verdict } from "./outcome.ts";
import { asCode, type PreparedRequest, type Provider } from "./provider.ts";

export type FcmOptions = { serviceAccount: ServiceAccount; baseUrl: string };

/** Pattern of registration tokens. None of these characters needs escaping in JSON. */
const TOKEN = /^[A-Za-z0-9_:.%~+/=-]{1,4096}$/;
const Accepted = Type.Object({ name: Type.String({ minLength: 1 }) });
const Failure = Type.Object({
  error: Type.Object({
    status: Type.Optional(Type.String()),
    details: Type.Optional(
      Type.Array(
        Type.Object({
          errorCode: Type.Optional(Type.String()),
          // Details of type google.rpc.BadRequest have this field.
          fieldViolations: Type.Optional(
            Type.Array(Type.Object({ field: Type.Optional(Type.String()) })),
          ),
        }),
      ),
    ),
  }),
});

/** Reads the service account. Throws UsageError if it is not usable. */
export async function openFcm(
  { credentials, baseUrl }: NonNullable<ProviderSettings["fcm"]>,
  clock: Clock,
  log: Log,
): Promise<Fcm> {
  const json = await variableText("FCM_CREDENTIALS", credentials, /^\s*\{/);
  return new Fcm({ serviceAccount: parseServiceAccount(json), baseUrl }, clock, log);
}

/** Google's push service by its HTTP v1 interface, which takes one request for each device. */
export class Fcm implements Provider {
  readonly origin: string;
  readonly #tokens: AccessTokens;
  readonly #path: string;

  constructor({ serviceAccount, baseUrl }: FcmOptions, clock: Clock, log: Log) {
    const { origin, pathname } = new URL(baseUrl);
    this.origin = origin;
    this.#tokens = new AccessTokens(serviceAccount, clock, log);
    const prefix = pathname.replace(/\/+$/, "");
    this.#path = `${prefix}/v1/projects/${serviceAccount.project_id}/messages:send`;
  }

  prepare(message: SharedMessage): PreparedRequest {
    const { android, ios, web } = fcmBodies(message);
    const bodyFor = (devicePlatform: number) => {
      if (devicePlatform === DEVICE_PLATFORM.ios) return ios;
      return devicePlatform === DEVICE_PLATFORM.web ? web : android;
    };
    return {
      precheck: ({ token, devicePlatform }) => {
        const { problem } = bodyFor(devicePlatform);
        if (problem !== undefined) return { kind: "refused", reason: problem };
        if (!TOKEN.test(token)) return { kind: "invalid_token", reason: "not a token of FCM" };
        return undefined;
      },
      request: ({ token, devicePlatform }, accessToken) => ({
        headers: {
          ":method": "POST",
          ":path": this.#path,
          authorization: `Bearer ${accessToken}`,
          "content-type": "application/json",
        },
        body: `{"message":{"token":"${token}",${bodyFor(devicePlatform).body}`,
      }),
    };
  }

  credential(): string | Promise<string> {
    return this.#tokens.get();
  }

  forget(credential: string): void {
    this.#tokens.forget(credential);
  }

  judge({ status, text, isWhole }: Answer): Verdict {
    const answer = parseJson(text);
    if (status === 200)
      return !isWhole || Value.Check(Accepted, answer)
        ? { kind: "sent" }
        : { kind: "retry", reason: "FCM 200 without a name" };
    const codes = codesOf(answer);
    const [code = ""] = codes;
    const reason = `FCM ${status} ${code}`.trimEnd();
    const says = (name: string) => codes.includes(name);
    if (status === 404 && says("UNREGISTERED")) return { kind: "invalid_token", reason };
    if (status === 400 && blamesTokenAlone(answer)) return { kind: "invalid_token", reason };
    // The token may be valid while the configured project is the wrong one.
    if (says("SENDER_ID_MISMATCH")) return { kind: "failed", reason };
    if (status === 429) return { kind: "retry", reason, limited: "unknown" };
    if (status >= 500) return { kind: "retry", reason };
    // The project lacks credentials for APNs or web push, which other devices do not need.
    if (says("THIRD_PARTY_AUTH_ERROR")) return { kind: "failed", reason };
    if (status === 401) return { kind: "renew", reason };
    if (status === 403) return { kind: "refused", reason };
    return { kind: "failed", reason };
  }
}

/**
 * Returns whether FCM names the token as the only invalid field, as it does for a token that it
 * never issued.
 */
function blamesTokenAlone(answer: unknown): boolean {
  if (!Value.Check(Failure, answer)) return false;
  const { details = [] } = answer.error;
  const fields = details.flatMap(({ fieldViolations = [] }) =>
    fieldViolations.map(({ field }) => field),
  );
  return fields.length > 0 && fields.every((field) => field === "message.token");
}

/** Lists the codes of an error: FCM's own before the general status. */
function codesOf(answer: unknown): string[] {
  if (!Value.Check(Failure, answer)) return [];
  const { status, details = [] } = answer.error;
  const codes = [...details.map(({ errorCode }) => errorCode), status];
  return codes.map(asCode).filter((code) => code !== undefined);
}
