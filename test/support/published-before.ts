import { expect } from "bun:test";

import { type TestApp } from "./app.ts";
import { type Update, UpdateApi, eventuallyClean, plainOf } from "./updates.ts";

const VERSION = "2264_00";

/** Build that exists before a refusal and must still exist after it. */
export class PublishedBefore {
  readonly api: UpdateApi;
  readonly version = VERSION;
  readonly #app: TestApp;
  readonly #update: Update;

  private constructor(app: TestApp, api: UpdateApi, update: Update) {
    this.api = api;
    this.#app = app;
    this.#update = update;
  }

  /** Publishes the build on a server without builds. */
  static async in(app: TestApp, fields: Record<string, string> = {}): Promise<PublishedBefore> {
    const api = await UpdateApi.of(app);
    const update = await api.published({ version: VERSION, notes: "before", fields });
    return new PublishedBefore(app, api, update);
  }

  /**
   * Fails unless the build is listed, offered and downloaded as before, and nothing else is stored.
   */
  async isAllThereIs(): Promise<void> {
    expect(await this.api.list()).toEqual([this.#update]);
    expect((await this.api.offered("2263_01")).SHA256).toBe(this.#update.SHA256);
    expect(await (await this.api.download(this.#update)).text()).toBe(`a build of ${VERSION}`);
    await eventuallyClean(this.#app);
  }

  /** Returns the refusal; fails unless only the build exists after it. */
  async outlives(answer: Promise<Response>): Promise<[status: number, text: string]> {
    const refusal = await plainOf(answer);
    expect(refusal[1]).toMatch(/^[^\n]+\n$/);
    await this.isAllThereIs();
    return refusal;
  }
}
