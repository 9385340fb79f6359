import { createHash } from "node:crypto";
import { readdir } from "node:fs/promises";
import { join } from "node:path";

import { beforeAll } from "bun:test";
import { Type } from "typebox";
import { Value } from "typebox/value";

import { type TestApp } from "./app.ts";
import { eventually } from "./eventually.ts";
import { type FormPart, MULTIPART, encodeForm } from "./forms.ts";
import { RawConnection } from "./raw-connection.ts";

/** A build as every route describes it, with the fields in the order of the answer. */
const Update = Type.Object(
  {
    Id: Type.Integer(),
    TargetABI: Type.String(),
    Checksum: Type.String(),
    Name: Type.String(),
    Message: Type.String(),
    Size: Type.String(),
    Version: Type.String(),
    Skipped: Type.Boolean(),
    Uploads: Type.Integer(),
    URI: Type.String(),
    SHA256: Type.String(),
    Signature: Type.String(),
    Channel: Type.String(),
    Rollout: Type.Number(),
    Withdrawn: Type.Boolean(),
    FloorPerABI: Type.Boolean(),
  },
  { additionalProperties: false },
);
export type Update = Type.Static<typeof Update>;
export const UPDATE_FIELDS = Object.keys(Update.properties);

/** A build to publish; missing parts are made up. */
export type Build = {
  version?: string;
  abi?: string;
  name?: string;
  notes?: string;
  bytes?: Uint8Array;
  /** other form fields, such as `channel`, `rollout`, `withdrawn`, `floorPerABI` and `signature` */
  fields?: Record<string, string>;
};

let versions = 0;

/** Returns a version that no other test of this process uses; by default not forced. */
export function aVersion(suffix = "01"): string {
  return `${1000 + versions++}_${suffix}`;
}

/** Returns the parts of a form that publishes a build, the fields before the file. */
export function formParts({
  version = aVersion(),
  abi = "arm64",
  name = "app.apk",
  notes,
  bytes = Buffer.from(`a build of ${version}`),
  fields = {},
}: Build = {}): FormPart[] {
  const texts = {
    appVersion: version,
    targetABI: abi,
    ...(notes !== undefined && { appNotes: notes }),
    ...fields,
  };
  return [
    ...Object.entries(texts).map(([field, value]) => ({ field, value })),
    { file: name, bytes, part: "tmpFile", type: "application/octet-stream" },
  ];
}

/** Client for the update routes, as used by publishers and apps. */
export class UpdateApi {
  readonly #server: { url: string };
  readonly signature: string;

  constructor(server: { url: string }, signature: string) {
    this.#server = server;
    this.signature = signature;
  }

  /** Returns a client with a new `service` signature. */
  static async of(app: TestApp): Promise<UpdateApi> {
    return new UpdateApi(app, await aSignature(app, "service"));
  }

  /** Returns a client with a new `service` signature for the app of `TestApp.forTests`. */
  static forTests(app: TestApp): UpdateApi {
    const signature = crypto.randomUUID();
    beforeAll(async () => void (await aSignature(app, "service", signature)));
    return new UpdateApi(app, signature);
  }

  get url(): string {
    return this.#server.url;
  }

  /** Returns a client with the same signature for another server. */
  at(target: { url: string }): UpdateApi {
    return new UpdateApi(target, this.signature);
  }

  get headers(): Record<string, string> {
    return { signature: this.signature };
  }

  async get(path: string, headers: Record<string, string> = {}): Promise<Response> {
    return await fetch(this.url + path, { headers });
  }

  async postForm(
    body: Bun.BodyInit,
    { query = "", headers = {} }: { query?: string; headers?: Record<string, string> } = {},
  ): Promise<Response> {
    return await fetch(`${this.url}/api/v1/updates${query}`, {
      method: "POST",
      body,
      headers: { ...MULTIPART, ...this.headers, ...headers },
    });
  }

  async publish(build: Build = {}): Promise<Response> {
    return await this.postForm(encodeForm(formParts(build)));
  }

  /** Publishes a build and returns the answer's description of it. */
  async published(build: Build = {}): Promise<Update> {
    return await updateOf(this.publish(build));
  }

  /** Checks for an update; `version` is used unchanged as the path's last segment. */
  async check(
    version: string,
    query = "",
    headers: Record<string, string> = {},
  ): Promise<Response> {
    return await this.get(`/api/v1/updates/${version}${query}`, headers);
  }

  /** Returns the build that a client is offered. */
  async offered(
    version: string,
    query = "",
    headers: Record<string, string> = {},
  ): Promise<Update> {
    return await updateOf(this.check(version, query, headers));
  }

  async list(): Promise<Update[]> {
    const answer = await this.get("/api/v1/updates", this.headers);
    if (answer.status !== 200) throw new Error(`answered ${answer.status}: ${await answer.text()}`);
    const value: unknown = await answer.json();
    Value.Assert(Type.Array(Update), value);
    return value;
  }

  async patch(
    id: number | string,
    changes: unknown,
    headers: Record<string, string> = this.headers,
  ): Promise<Response> {
    return await fetch(`${this.url}/api/v1/updates/${id}`, {
      method: "PATCH",
      headers: { "content-type": "application/json", ...headers },
      body: typeof changes === "string" ? changes : JSON.stringify(changes),
    });
  }

  async patched(id: number, changes: Record<string, unknown>): Promise<Update> {
    return await updateOf(this.patch(id, changes));
  }

  /** Downloads the build by the path that names it exactly. */
  async download(
    { TargetABI, Version, Name }: Pick<Update, "TargetABI" | "Version" | "Name">,
    headers: Record<string, string> = {},
  ): Promise<Response> {
    const path = [TargetABI, Version, encodeURIComponent(Name)].join("/");
    return await this.get(`/source/${path}`, headers);
  }

  /** Sends the first bytes of a publishing request; `finish` sends the rest. */
  async begin(
    build: Build & { bytes: Uint8Array },
    sent: number,
  ): Promise<{ connection: RawConnection; finish: () => void }> {
    const form = encodeForm(formParts(build));
    const connection = await RawConnection.open(this.url);
    connection.head("POST /api/v1/updates", {
      ...MULTIPART,
      ...this.headers,
      "content-length": form.length,
    });
    connection.write(form.subarray(0, sent));
    return { connection, finish: () => connection.write(form.subarray(sent)) };
  }
}

/** Returns the build in a 200. Throws for any other answer. */
export async function updateOf(answer: Response | Promise<Response>): Promise<Update> {
  const response = await answer;
  if (response.status !== 200)
    throw new Error(`answered ${response.status}: ${await response.text()}`);
  const value: unknown = await response.json();
  Value.Assert(Update, value);
  return value;
}

/** Returns the status and text of a refusal. Throws if it is not plain text. */
export async function plainOf(
  answer: Response | Promise<Response>,
): Promise<[status: number, text: string]> {
  const response = await answer;
  const type = response.headers.get("content-type");
  if (type !== "text/plain; charset=utf-8")
    throw new Error(`answered ${response.status} with the type ${type}`);
  return [response.status, await response.text()];
}

/** Creates a signature in the database, which is faster than by the command line. */
export async function aSignature(
  { sql }: Pick<TestApp, "sql">,
  role: "client" | "service",
  text = crypto.randomUUID(),
): Promise<string> {
  const digest = createHash("sha256").update(text).digest();
  await sql`insert into signatures ${sql({ role, digest })}`;
  return text;
}

export function hashesOf(bytes: Uint8Array): { Checksum: string; SHA256: string } {
  const hex = (algorithm: string) => createHash(algorithm).update(bytes).digest("hex");
  return { Checksum: hex("md5"), SHA256: hex("sha256") };
}

/** Lists objects of builds that no row names, and unfinished uploads. */
export async function leftovers(app: TestApp): Promise<string[]> {
  const rows = await app.sql<{ id: string }[]>`select object_id::text as id from builds`;
  const named = new Set(rows.map(({ id }) => `builds/${id}`));
  const stored = await Array.fromAsync(app.objects.list("builds/"));
  const unfinished =
    app.config.s3 === undefined ? await unfinishedFiles(app) : await unfinishedParts(app);
  return [...stored.map(({ key }) => key).filter((key) => !named.has(key)), ...unfinished];
}

/** Resolves once every stored object has a row, and none waits to be deleted. */
export async function eventuallyClean(app: TestApp, withinMs?: number): Promise<void> {
  await eventually("nothing is left", async () => (await leftovers(app)).length === 0, withinMs);
  const undue = async () => await app.sql`select from build_garbage where due_at > now()`;
  await eventually("nothing waits", async () => (await undue()).length === 0, withinMs);
}

/** Makes all objects that wait to be deleted due. */
export async function makeDue({ sql }: Pick<TestApp, "sql">): Promise<void> {
  await sql`update build_garbage set due_at = now()`;
}

export async function garbage({ sql }: Pick<TestApp, "sql">): Promise<number> {
  return (await sql`select from build_garbage`).length;
}

async function unfinishedFiles({ config }: TestApp): Promise<string[]> {
  const names = await readdir(join(config.dataDir, "objects/.tmp"), { recursive: true });
  return names.map((name) => `.tmp/${name}`);
}

/** Lists the keys of unfinished multipart uploads. */
export async function unfinishedParts({ config: { s3 } }: TestApp): Promise<string[]> {
  if (s3?.endpoint === undefined) throw new Error("the store is not the tests' S3 server");
  const { ListMultipartUploadsCommand, S3Client } = await import("@aws-sdk/client-s3");
  const client = new S3Client({
    endpoint: s3.endpoint,
    region: s3.region ?? "us-east-1",
    credentials: {
      accessKeyId: s3.accessKeyId ?? "",
      secretAccessKey: s3.secretAccessKey ?? "",
    },
    forcePathStyle: true,
  });
  try {
    const { Uploads } = await client.send(new ListMultipartUploadsCommand({ Bucket: s3.bucket }));
    return (Uploads ?? []).map(({ Key }) => `unfinished ${Key}`);
  } finally {
    client.destroy();
  }
}
