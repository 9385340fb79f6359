import { beforeAll } from "bun:test";

import { stringifyExact } from "../../src/wire/exact-json.ts";
import { type Install } from "../../src/updates/install-schema.ts";
import { type TestApp } from "./app.ts";
import { aSignature } from "./updates.ts";

export const USER: Install = {
  ID: 0n,
  AppLocale: "en",
  AppVersion: "2264_00",
  DeviceLocale: "en-us",
  DeviceMac: "02:00:00:44:55:66",
  DeviceModel: "Pixel 4",
  DeviceSDK: "SDK 30",
  SessionActivity: 1_632_000_000n,
  SessionID: 1_234_567_890n,
  SessionRegister: 1_631_000_000n,
  TgVersion: "8.0.1",
  TargetABI: "arm64",
};

/** Client for the routes of installs (`/api/v1/users`). */
export class UserApi {
  readonly #app: TestApp;
  readonly client = crypto.randomUUID();
  readonly service = crypto.randomUUID();

  private constructor(app: TestApp) {
    this.#app = app;
  }

  /** Returns a client with new signatures. */
  static async of(app: TestApp): Promise<UserApi> {
    const api = new UserApi(app);
    await api.#sign();
    return api;
  }

  /** Returns a client with new signatures for the app of `TestApp.forTests`. */
  static forTests(app: TestApp): UserApi {
    const api = new UserApi(app);
    beforeAll(async () => await api.#sign());
    return api;
  }

  async #sign(): Promise<void> {
    await aSignature(this.#app, "client", this.client);
    await aSignature(this.#app, "service", this.service);
  }

  get url(): string {
    return this.#app.url;
  }

  async post(
    body: Bun.BodyInit,
    headers: Record<string, string> = { signature: this.client },
  ): Promise<Response> {
    return await fetch(`${this.url}/api/v1/users`, { method: "POST", body, headers });
  }

  /** Reports an install and returns the id of its row. */
  async reported(user: Partial<Install> = {}): Promise<bigint> {
    const answer = await this.post(stringifyExact({ ...USER, ...user }));
    const text = await answer.text();
    const id = /^\{"ID":(\d+),/.exec(text)?.[1];
    if (answer.status !== 200 || id === undefined)
      throw new Error(`answered ${answer.status}: ${text}`);
    return BigInt(id);
  }

  async list(
    query = "",
    headers: Record<string, string> = { signature: this.service },
  ): Promise<Response> {
    return await fetch(`${this.url}/api/v1/users${query}`, { headers });
  }
}

/** Inserts a build that reports can count. */
export async function aBuild(
  { sql }: Pick<TestApp, "sql">,
  version: string,
  abi = "arm64",
): Promise<void> {
  await sql`
    insert into builds (version, target_abi, name, notes, bytes, md5, sha256, object_id, skipped)
    values (${version}, ${abi}, 'app.apk', '', 1, '', '', ${crypto.randomUUID()}, true)`;
}

/** Returns how often each build was counted, by version and ABI. */
export async function uploads({ sql }: Pick<TestApp, "sql">): Promise<Record<string, number>> {
  const rows = await sql<{ build: string; uploads: number }[]>`
    select version || target_abi as build, uploads::integer as uploads from builds`;
  return Object.fromEntries(rows.map((row) => [row.build, row.uploads]));
}
