import { Type } from "typebox";
import { Value } from "typebox/value";

import { type Clock } from "../platform/clock.ts";
import { parseJson } from "../platform/bodies/json.ts";
import { type Log } from "../platform/logger.ts";
import { DEVICE_PLATFORM } from "../platform/push-platforms.ts";
import { AccessTokens } from "./access-token.ts";
import { type ServiceAccount } from "./credentials.ts";
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

export type FcmConfig = { serviceAccount: ServiceAccount; baseUrl: string };

/** As registration tokens are written; none of it needs escaping in JSON. */
const TOKEN = /^[A-Za-z0-9_:.%~+/=-]{1,4096}$/;
const Accepted = Type.Object({ name: Type.String({ minLength: 1 }) });
const Failure = Type.Object({
  error: Type.Object({
    status: Type.Optional(Type.String()),
    details: Type.Optional(
      Type.Array(
        Type.Object({
          errorCode: Type.Optional(Type.String()),
          // Part of google.rpc.BadRequest.
          fieldViolations: Type.Optional(
            Type.Array(Type.Object({ field: Type.Optional(Type.String()) })),
          ),
        }),
      ),
    ),
  }),
});

/** Google's push service by its HTTP v1 interface: one request for each device. */
export class Fcm implements Provider {
  readonly name = "fcm";
  readonly origin: string;
  readonly #tokens: AccessTokens;
  readonly #path: string;

  constructor({ serviceAccount, baseUrl }: FcmConfig, clock: Clock, log: Log) {
    const { origin, pathname } = new URL(baseUrl);
    this.origin = origin;
    this.#tokens = new AccessTokens(serviceAccount, clock, log);
    const prefix = pathname.replace(/\/+$/, "");
    this.#path = `${prefix}/v1/projects/${serviceAccount.project_id}/messages:send`;
  }

  precheck(target: PushTarget, message: PreparedMessage): Outcome | undefined {
    const { problem } = partFor(target, message);
    if (problem !== undefined) return { kind: "refused", reason: problem };
    if (!TOKEN.test(target.token)) return { kind: "invalid_token", reason: "not a token of FCM" };
    return undefined;
  }

  credential(): string | Promise<string> {
    return this.#tokens.get();
  }

  forget(credential: string): void {
    this.#tokens.forget(credential);
  }

  request(target: PushTarget, message: PreparedMessage, accessToken: string): PushRequest {
    return {
      headers: {
        ":method": "POST",
        ":path": this.#path,
        authorization: `Bearer ${accessToken}`,
        "content-type": "application/json",
      },
      body: `{"message":{"token":"${target.token}",${partFor(target, message).body}`,
    };
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
    // The token may be right, and the project that is configured wrong.
    if (says("SENDER_ID_MISMATCH")) return { kind: "failed", reason };
    if (status === 429) return { kind: "retry", reason, limited: "unknown" };
    if (status >= 500) return { kind: "retry", reason };
    // The project's own credentials for APNs or web push are missing: other devices do not need them.
    if (says("THIRD_PARTY_AUTH_ERROR")) return { kind: "failed", reason };
    if (status === 401) return { kind: "renew", reason };
    if (status === 403) return { kind: "refused", reason };
    return { kind: "failed", reason };
  }
}

function partFor({ devicePlatform }: PushTarget, { fcm }: PreparedMessage) {
  if (devicePlatform === DEVICE_PLATFORM.ios) return fcm.ios;
  return devicePlatform === DEVICE_PLATFORM.web ? fcm.web : fcm.android;
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

/** FCM's own code comes before the general status. */
function codesOf(answer: unknown): string[] {
  if (!Value.Check(Failure, answer)) return [];
  const { status, details = [] } = answer.error;
  const codes = [...details.map(({ errorCode }) => errorCode), status];
  return codes.map(asCode).filter((code) => code !== undefined);
}
