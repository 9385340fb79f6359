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
  readonly url: string;
  readonly client: string;
  readonly service: string;

  private constructor(url: string, client: string, service: string) {
    this.url = url;
    this.client = client;
    this.service = service;
  }

  static async of(app: TestApp): Promise<UserApi> {
    return new UserApi(app.url, await aSignature(app, "client"), await aSignature(app, "service"));
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
