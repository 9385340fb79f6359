import { type TestSession } from "./app.ts";
import { aBatch } from "./batches.ts";
import { append, statusOf } from "./requests.ts";

/** Sends batches of several sessions at once, each one request after the other. */
export class Load {
  readonly #server: { url: string };
  readonly #sessions: TestSession[];
  #stopped = false;
  readonly counts: number[] = [];
  readonly failures: unknown[] = [];

  constructor(server: { url: string }, sessions: TestSession[]) {
    this.#server = server;
    this.#sessions = sessions;
  }

  get acknowledged(): number {
    return this.counts.reduce((sum, count) => sum + count, 0);
  }

  async run(): Promise<void> {
    await Promise.all(this.#sessions.map((session, number) => this.#send(session, number)));
  }

  stop(): void {
    this.#stopped = true;
  }

  async #send(session: TestSession, number: number): Promise<void> {
    this.counts[number] = 0;
    for (let i = 0; !this.#stopped; i++) {
      const batch = aBatch({ messages: 10, bytes: 4000, salt: `${number}/${i}` });
      const status = await statusOf(append(this.#server, session, batch));
      if (status === 200) this.counts[number]++;
      else this.failures.push(status);
    }
  }
}
