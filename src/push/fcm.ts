import { Type } from "typebox";
import { Value } from "typebox/value";

import { type Clock } from "../platform/clock.ts";
import { AccessTokens } from "./access-token.ts";
import { type ServiceAccount } from "./credentials.ts";
import { type Answer } from "./http2-session.ts";
import { type PreparedMessage } from "./message.ts";
import {
  asCode,
  type Outcome,
  parseJson,
  type Provider,
  type PushRequest,
  type PushTarget,
  type Verdict,
} from "./outcome.ts";

export type FcmConfig = { serviceAccount: ServiceAccount; baseUrl: string };

/** As registration tokens are written; none of it needs escaping in JSON. */
const TOKEN = /^[A-Za-z0-9_:.%~+/=-]{1,4096}$/;
const IOS = 2;
const WEB = 3;
const Failure = Type.Object({
  error: Type.Object({
    status: Type.Optional(Type.String()),
    message: Type.Optional(Type.String()),
    details: Type.Optional(
      Type.Array(
        Type.Object({
          errorCode: Type.Optional(Type.String()),
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

  constructor({ serviceAccount, baseUrl }: FcmConfig, clock: Clock) {
    const { origin, pathname } = new URL(baseUrl);
    this.origin = origin;
    this.#tokens = new AccessTokens(serviceAccount, clock);
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

  judge({ status, text }: Answer): Verdict {
    if (status === 200) return { kind: "sent" };
    const { codes, namesToken } = readFailure(text);
    const [code = ""] = codes;
    const reason = `FCM ${status} ${code}`.trimEnd();
    const says = (name: string) => codes.includes(name);
    if (says("UNREGISTERED") || says("SENDER_ID_MISMATCH"))
      return { kind: "invalid_token", reason };
    if (status === 429) return { kind: "retry", reason, quota: true };
    if (status >= 500) return { kind: "retry", reason };
    // The project's own credentials for APNs or web push are missing: other devices do not need them.
    if (says("THIRD_PARTY_AUTH_ERROR")) return { kind: "failed", reason };
    if (status === 401) return { kind: "renew", reason };
    if (status === 403) return { kind: "refused", reason };
    if (status === 400 && namesToken) return { kind: "invalid_token", reason };
    return { kind: "failed", reason };
  }
}

function partFor({ devicePlatform }: PushTarget, { fcm }: PreparedMessage) {
  if (devicePlatform === IOS) return fcm.ios;
  return devicePlatform === WEB ? fcm.web : fcm.android;
}

/** FCM's own code comes before the general status. */
function readFailure(text: string): { codes: string[]; namesToken: boolean } {
  const parsed = parseJson(text);
  if (!Value.Check(Failure, parsed)) return { codes: [], namesToken: false };
  const { status, message = "", details = [] } = parsed.error;
  const codes = [...details.map(({ errorCode }) => errorCode), status];
  const fields = details.flatMap(({ fieldViolations = [] }) => fieldViolations);
  return {
    codes: codes.map(asCode).filter((code) => code !== undefined),
    namesToken:
      fields.some(({ field }) => field === "message.token") || /registration token/i.test(message),
  };
}
