import { type Campaign } from "../push/message.ts";
import { type Outcome, type PushTarget } from "../push/outcome.ts";

/** What the worker needs of the push senders. */
export interface Sender<Prepared> {
  readonly canSend: { fcm: boolean; apns: boolean };
  /** How many sends there may be at a time. */
  readonly concurrency: number;
  prepare(message: Campaign): Prepared;
  send(target: PushTarget, prepared: Prepared, signal: AbortSignal): Promise<Outcome>;
}
