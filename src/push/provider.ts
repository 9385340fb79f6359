import { type OutgoingHttpHeaders } from "node:http2";

import { type ProviderName } from "../platform/config/push-config.ts";
import { type Answer } from "./http2-session.ts";
import { type SharedMessage } from "./message.ts";
import { type Outcome, type Verdict } from "./outcome.ts";

export type PushTarget = {
  provider: ProviderName;
  token: string;
  /** One of DEVICE_PLATFORM. */
  devicePlatform: number;
  /** UUID that stays the same when this push is sent again. */
  messageId: string;
};

export type PushRequest = { headers: OutgoingHttpHeaders; body: string | Buffer };

/** Credentials of one provider, and the form of its requests and answers. */
export type Provider = {
  readonly origin: string;
  /** Builds the parts of the requests that all devices share. */
  prepare: (message: SharedMessage) => PreparedRequest;
  /** Returns what authorizes a request. Rejects with CredentialsRefused or CredentialsUnavailable. */
  credential: () => string | Promise<string>;
  /** Drops the credential, unless it was replaced already. */
  forget: (credential: string) => void;
  judge: (answer: Answer) => Verdict;
};

/** A message in the form of one provider. */
export type PreparedRequest = {
  /** Returns the outcome of a push that needs no request to be known. */
  precheck: (target: PushTarget) => Outcome | undefined;
  request: (target: PushTarget, credential: string) => PushRequest;
};

/** Thrown by `credential` if the provider refuses to issue one: no push can succeed. */
export class CredentialsRefused extends Error {
  override readonly name = "CredentialsRefused";
}

/** Thrown by `credential` if none can be had now; until `retryMs` have passed it is thrown again. */
export class CredentialsUnavailable extends Error {
  override readonly name = "CredentialsUnavailable";
  readonly retryMs: number;

  constructor(reason: string, retryMs: number) {
    super(reason);
    this.retryMs = retryMs;
  }
}

/** Returns an error code of a provider. Other text is dropped, as it may hold a device's token. */
export function asCode(text: unknown): string | undefined {
  return typeof text === "string" && /^[A-Za-z_]{1,64}$/.test(text) ? text : undefined;
}
