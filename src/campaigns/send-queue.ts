import { setTimeout } from "node:timers/promises";

import { type Semaphore } from "./semaphore.ts";
import { type TargetDevice } from "./targets.ts";

const STUCK_MS = 1000;

/**
 * Begins the sends of a campaign to one provider, chunk after chunk. Refuses a chunk while it is
 * stuck, so that other providers' sends go on.
 */
export class SendQueue {
  readonly #window: Semaphore;
  readonly #begin: (device: TargetDevice, window: Semaphore) => void;
  #begun = 0;
  #isBusy = false;
  #isStuck = false;
  #chunk: Promise<void> = Promise.resolve();

  /** `begin` releases the window when its send is over. It throws when nothing more may be sent. */
  constructor(window: Semaphore, begin: (device: TargetDevice, window: Semaphore) => void) {
    this.#window = window;
    this.#begin = begin;
  }

  /**
   * Takes devices over once the sends of those before have begun. Returns false if no send begins
   * for a second. Throws what `begin` threw.
   */
  async take(devices: TargetDevice[]): Promise<boolean> {
    if (devices.length === 0) return true;
    while (this.#isBusy) {
      if (this.#isStuck) return false;
      const begun = this.#begun;
      await Promise.race([this.#chunk, setTimeout(STUCK_MS, undefined, { ref: false })]);
      this.#isStuck = this.#isBusy && this.#begun === begun;
    }
    this.#chunk = this.#send(devices);
    // The error is thrown to those who await the chunk.
    this.#chunk.catch(() => undefined);
    return true;
  }

  /** Waits until the sends of all devices that were taken over have begun. Throws what `begin` threw. */
  async drained(): Promise<void> {
    await this.#chunk;
  }

  async #send(devices: TargetDevice[]): Promise<void> {
    this.#isBusy = true;
    try {
      for (const device of devices) {
        const place = this.#window.acquire();
        if (place !== undefined) await place;
        this.#begun++;
        this.#isStuck = false;
        this.#begin(device, this.#window);
      }
    } finally {
      this.#isBusy = false;
    }
  }
}
