import { setTimeout } from "node:timers/promises";

import { type Slots } from "./slots.ts";
import { type TargetDevice } from "./targets.ts";

const STUCK_MS = 1000;

/** Begins the sends of a campaign to one provider, chunk after chunk, and tells when they do not get on: the other provider's then go on alone. */
export class Lane {
  readonly #slots: Slots;
  readonly #begin: (device: TargetDevice, slots: Slots) => void;
  #begun = 0;
  #isBusy = false;
  #isStuck = false;
  #chunk: Promise<void> = Promise.resolve();

  /** `begin` has a slot to give back; it throws when no more is to be sent. */
  constructor(slots: Slots, begin: (device: TargetDevice, slots: Slots) => void) {
    this.#slots = slots;
    this.#begin = begin;
  }

  /** Takes the devices over once those before have begun. False when that may last. Throws what `begin` threw. */
  async take(devices: TargetDevice[]): Promise<boolean> {
    if (devices.length === 0) return true;
    while (this.#isBusy) {
      if (this.#isStuck) return false;
      const begun = this.#begun;
      await Promise.race([this.#chunk, setTimeout(STUCK_MS, undefined, { ref: false })]);
      this.#isStuck = this.#isBusy && this.#begun === begun;
    }
    this.#chunk = this.#send(devices);
    // Whoever waits for it is told.
    this.#chunk.catch(() => undefined);
    return true;
  }

  /** Resolves when all that was taken over has begun. Throws what `begin` threw. */
  async drained(): Promise<void> {
    await this.#chunk;
  }

  async #send(devices: TargetDevice[]): Promise<void> {
    this.#isBusy = true;
    try {
      for (const device of devices) {
        const slot = this.#slots.take();
        if (slot !== undefined) await slot;
        this.#begun++;
        this.#isStuck = false;
        this.#begin(device, this.#slots);
      }
    } finally {
      this.#isBusy = false;
    }
  }
}
