/** What happened to one send. */
export type Outcome =
  | { kind: "sent" }
  | { kind: "failed"; reason: string }
  /** the provider knows the token no more; `timestamp` is since when in epoch ms, where it says so */
  | { kind: "invalid_token"; reason: string; timestamp?: number }
  /** the credentials are refused, so that no device of the platform can be reached */
  | { kind: "refused"; reason: string };

export type Target = {
  platform: "fcm" | "apns";
  token: string;
  devicePlatform: number;
  /** the same whenever this device is sent this launch */
  apnsId: string;
};

/** What a campaign says, the same for all devices. */
export type Message = {
  uuid: string;
  launch: number;
  title: string;
  body: string;
  imageUrl: string | null;
  iconUrl: string | null;
  deepLink: string | null;
};

/** What the worker needs of the push senders. */
export interface Sender<Prepared> {
  readonly canSend: { fcm: boolean; apns: boolean };
  /** How many sends there may be at a time. */
  readonly concurrency: number;
  prepare(message: Message): Prepared;
  send(target: Target, prepared: Prepared, signal: AbortSignal): Promise<Outcome>;
}
