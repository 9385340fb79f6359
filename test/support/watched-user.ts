import { EventStream } from "./event-stream.ts";
import { type Target, aUser, ping, watching } from "./presence.ts";

// The server looks at the clock four times a second.
const TICK_MS = 350;

/** A stranger's stream of a user, which can tell that nothing has come. */
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

  /** Fails when an event of the user came before that of another user's ping. */
  async quiet(): Promise<void> {
    await ping(this.#target, { userid: this.#marker, status: "marker" });
    const { userid, ...event } = await this.stream.presence();
    if (userid !== this.#marker) throw new Error(`not quiet: ${JSON.stringify(event)}`);
  }

  /** The same after the server has looked at the clock. */
  async quietAfterTick(): Promise<void> {
    await Bun.sleep(TICK_MS);
    await this.quiet();
  }

  [Symbol.dispose](): void {
    this.stream[Symbol.dispose]();
  }
}
