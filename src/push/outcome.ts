import { type OutgoingHttpHeaders } from "node:http2";

import { type Answer } from "./http2-session.ts";
import { type PreparedMessage } from "./message.ts";

/** What became of one push. */
export type Outcome =
  | { kind: "sent" }
  /** The provider knows no such device; APNs may tell since when, in epoch ms. */
  | { kind: "invalid_token"; reason: string; timestamp?: number }
  | { kind: "failed"; reason: string }
  /** Credentials, topic or content are refused persistently: other devices would fail, too. */
  | { kind: "refused"; reason: string };

export type Verdict =
  | Outcome
  /** `limited` when too much was sent: to this device, or else it does not say to whom. */
  | { kind: "retry"; reason: string; limited?: "device" | "unknown" }
  /** The credential that was used is none any more. */
  | { kind: "renew"; reason: string };

export type PushTarget = {
  platform: "fcm" | "apns";
  token: string;
  /** As in DEVICE_PLATFORM. */
  devicePlatform: number;
  /** A UUID, the same whenever this push is sent again. */
  apnsId: string;
};

export type PushRequest = { headers: OutgoingHttpHeaders; body: string | Buffer };

/** What one provider's requests and answers look like. */
export type Provider = {
  readonly name: "fcm" | "apns";
  readonly origin: string;
  /** Why nothing needs to be sent to learn the outcome. */
  precheck: (target: PushTarget, message: PreparedMessage) => Outcome | undefined;
  credential: () => string | Promise<string>;
  /** Forgets a credential; another one than the present is forgotten already. */
  forget: (credential: string) => void;
  request: (target: PushTarget, message: PreparedMessage, credential: string) => PushRequest;
  judge: (answer: Answer) => Verdict;
};

/** Thrown by `credential` when there will not be one: no other push would get further. */
export class CredentialsRefused extends Error {
  override readonly name = "CredentialsRefused";
}

/** Thrown by `credential` when there is none for now; asked sooner than after that time it only throws this again. */
export class CredentialsUnavailable extends Error {
  override readonly name = "CredentialsUnavailable";
  readonly retryMs: number;

  constructor(reason: string, retryMs: number) {
    super(reason);
    this.retryMs = retryMs;
  }
}

/** A code as providers write them; other text could hold anything, a device's token too. */
export function asCode(text: unknown): string | undefined {
  return typeof text === "string" && /^[A-Za-z_]{1,64}$/.test(text) ? text : undefined;
}
