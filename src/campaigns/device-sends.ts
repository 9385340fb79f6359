import { type CampaignMessage } from "../push/message.ts";
import { type Outcome } from "../push/outcome.ts";
import { DEVICE_EVENT } from "./enums.ts";
import { messageId } from "./message-id.ts";
import { type Ended } from "./outcomes.ts";
import { type Semaphore } from "./semaphore.ts";
import { type Sender } from "./sending.ts";
import { type TargetDevice } from "./targets.ts";

/** Thrown when a provider would refuse every device of a campaign. */
export class Refused extends Error {
  override readonly name = "Refused";
}

/** Sends of one run of a campaign that are under way. */
export class DeviceSends<Prepared> {
  readonly #sender: Sender<Prepared>;
  readonly #message: CampaignMessage;
  readonly #prepared: Prepared;
  readonly #run: AbortController;
  readonly #onEnded: (ended: Ended) => void;
  #running = 0;
  /** Ends the waits for the sends under way. */
  #idle: (() => void)[] = [];

  constructor(
    sender: Sender<Prepared>,
    message: CampaignMessage,
    run: AbortController,
    onEnded: (ended: Ended) => void,
  ) {
    this.#sender = sender;
    this.#message = message;
    this.#prepared = sender.prepare(message);
    this.#run = run;
    this.#onEnded = onEnded;
  }

  /** Sends to a device. Without an outcome it releases the window and aborts the run. */
  begin(device: TargetDevice, window: Semaphore): void {
    this.#running++;
    void this.#send(device, window);
  }

  /** Waits for all sends that were begun. */
  async idle(): Promise<void> {
    if (this.#running > 0)
      await new Promise<void>((resolve) => {
        this.#idle.push(resolve);
      });
  }

  async #send(device: TargetDevice, window: Semaphore): Promise<void> {
    let end: Pick<Ended, "event" | "invalidSince"> | undefined;
    try {
      end = await this.#endOf(device);
    } catch (error) {
      // The next worker sends to a device without an outcome again.
      this.#run.abort(error);
    }
    if (end === undefined) window.release();
    else this.#onEnded({ device, window, ...end });
    this.#running--;
    if (this.#running === 0) for (const resolve of this.#idle.splice(0)) resolve();
  }

  /** Throws Refused. */
  async #endOf(device: TargetDevice): Promise<Pick<Ended, "event" | "invalidSince">> {
    const { id, provider, token, devicePlatform, tokenInvalid } = device;
    if (provider === undefined) return { event: DEVICE_EVENT.undeliverable, invalidSince: 0 };
    if (tokenInvalid) return { event: DEVICE_EVENT.invalid_token, invalidSince: 0 };
    const target = { provider, token, devicePlatform, messageId: messageId(this.#message, id) };
    const outcome = await this.#sender.send(target, this.#prepared, this.#run.signal);
    if (outcome.kind === "refused") throw new Refused(outcome.reason);
    return { event: DEVICE_EVENT[outcome.kind], invalidSince: invalidSinceOf(outcome) };
  }
}

function invalidSinceOf(outcome: Outcome): number {
  return outcome.kind === "invalid_token" ? (outcome.timestamp ?? 0) : 0;
}
