import { type ProviderName } from "../platform/config/push-config.ts";
import { type CampaignMessage } from "../push/message.ts";
import { type Outcome } from "../push/outcome.ts";
import { type PushTarget } from "../push/provider.ts";

/** The part of the push sender that a worker uses. */
export interface Sender<Prepared> {
  readonly canSend: Record<ProviderName, boolean>;
  /** Limit of sends at a time, over all providers. */
  readonly concurrency: number;
  prepare(message: CampaignMessage): Prepared;
  send(target: PushTarget, prepared: Prepared, signal: AbortSignal): Promise<Outcome>;
}
