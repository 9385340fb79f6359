import { EventStream } from "./event-stream.ts";
import { type Target, aUser, ping, watching } from "./presence.ts";

// Longer than the interval at which the server expires devices, 250 ms.
const TICK_MS = 350;

/** Stream of a user for another user, which can check that no event has arrived. */
export class WatchedUser implements Disposable {
  readonly stream: EventStream;
  readonly #target: Target;
  readonly #marker: string;

  private constructor(target: Target, marker: string, stream: EventStream) {
    this.#target = target;
    this.#marker = marker;
    this.stream = stream;
  }

  static async open(target: Target, userid: string): Promise<WatchedUser> {
    const marker = aUser("marker");
    return new WatchedUser(
      target,
      marker,
      await EventStream.open(target, watching(userid, marker)),
    );
  }

  /** Fails if an event of the user arrives before that of another user's ping. */
  async quiet(): Promise<void> {
    await ping(this.#target, { userid: this.#marker, status: "marker" });
    const { userid, ...event } = await this.stream.presence();
    if (userid !== this.#marker) throw new Error(`not quiet: ${JSON.stringify(event)}`);
  }

  /** Checks the same after the server has expired devices that are due. */
  async quietAfterTick(): Promise<void> {
    await Bun.sleep(TICK_MS);
    await this.quiet();
  }

  [Symbol.dispose](): void {
    this.stream[Symbol.dispose]();
  }
}
