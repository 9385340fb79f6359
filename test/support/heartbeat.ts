import { type Ping, type Target, ping } from "./presence.ts";

/** Device that pings until it is disposed of, which fails if a ping was refused. */
export class Heartbeat implements AsyncDisposable {
  /** number of accepted pings */
  pings = 0;
  readonly #end = new AbortController();
  readonly #ended: Promise<void>;

  constructor(target: Target, device: Ping, everyMs: number) {
    this.#ended = this.#run(target, device, everyMs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end.abort();
    await this.#ended;
  }

  async #run(target: Target, device: Ping, everyMs: number): Promise<void> {
    while (!this.#end.signal.aborted) {
      await ping(target, device);
      this.pings++;
      await Bun.sleep(everyMs);
    }
  }
}
