import { afterEach, describe, expect, test } from "bun:test";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { type S3Config, readConfig } from "../../../src/platform/config/config.ts";
import { S3Objects } from "../../../src/platform/objects/s3-objects.ts";
import { TestApp } from "../../support/app.ts";
import { aBatch } from "../../support/batches.ts";
import { s3Server } from "../../support/s3-server.ts";
import { chunksOf } from "../../support/stores.ts";
import { VirtualHostStore } from "../../support/virtual-host-store.ts";

const KEYS = { AWS_ACCESS_KEY_ID: "AKIAONE", AWS_SECRET_ACCESS_KEY: "secret" };

describe("a request is signed", () => {
  test.each<[string, Record<string, string>, string]>([
    ["for us-east-1, where nothing names a region", {}, "us-east-1"],
    ["for AWS_REGION", { AWS_REGION: "eu-west-1" }, "eu-west-1"],
    ["for AWS_DEFAULT_REGION", { AWS_DEFAULT_REGION: "eu-west-2" }, "eu-west-2"],
    [
      "for AWS_REGION rather than AWS_DEFAULT_REGION",
      { AWS_REGION: "eu-west-1", AWS_DEFAULT_REGION: "eu-west-2" },
      "eu-west-1",
    ],
    [
      "for S3_REGION rather than any other",
      { S3_REGION: "auto", AWS_REGION: "eu-west-1", AWS_DEFAULT_REGION: "eu-west-2" },
      "auto",
    ],
  ])("%s", async (_what, env, region) => {
    await using store = await aStore({ ...KEYS, ...env });
    await store.objects.ping();
    expect(store.requests[0]?.headers.get("authorization")).toContain(`/${region}/s3/`);
    expect(await store.link()).toMatch(new RegExp(`X-Amz-Credential=AKIAONE%2F\\d+%2F${region}`));
  });

  test("with the session token, in links too", async () => {
    await using store = await aStore({ ...KEYS, AWS_SESSION_TOKEN: "token/1" });
    await store.objects.put("one", Buffer.from("bytes")).catch(() => undefined);
    await store.objects.ping();
    for (const { headers } of store.requests)
      expect(headers.get("x-amz-security-token")).toBe("token/1");
    expect(await store.link()).toContain("X-Amz-Security-Token=token%2F1");
  });

  test("without a token where there is none", async () => {
    await using store = await aStore(KEYS);
    await store.objects.ping();
    expect(store.requests[0]?.headers.has("x-amz-security-token")).toBe(false);
    expect(await store.link()).not.toContain("Security-Token");
  });
});

describe("without keys credentials are found", () => {
  const before = { ...process.env };
  const folders: string[] = [];
  afterEach(async () => {
    for (const name of Object.keys(process.env))
      if (name.startsWith("AWS_")) delete process.env[name];
    Object.assign(process.env, before);
    for (const folder of folders.splice(0)) await rm(folder, { recursive: true });
  });

  async function aFile(name: string, text: string): Promise<string> {
    const folder = await mkdtemp(join(tmpdir(), "floodgate-aws-"));
    folders.push(folder);
    await writeFile(join(folder, name), text);
    return join(folder, name);
  }

  test("in a profile, with its region", async () => {
    given({
      AWS_PROFILE: "other",
      AWS_SHARED_CREDENTIALS_FILE: await aFile(
        "credentials",
        "[other]\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = x\naws_session_token = t\n",
      ),
      AWS_CONFIG_FILE: await aFile("config", "[profile other]\nregion = ap-south-1\n"),
    });
    await using store = await aStore({});
    await store.objects.ping();
    const [request] = store.requests;
    expect(request?.headers.get("authorization")).toMatch(/AKIAPROFILE\/\d+\/ap-south-1\/s3/);
    expect(request?.headers.get("x-amz-security-token")).toBe("t");
    expect(await store.link()).toContain("X-Amz-Security-Token=t");
  });

  test("by a web identity", async () => {
    const asked: string[] = [];
    await using sts = serving(async (request) => {
      asked.push(await request.text());
      return new Response(ASSUMED, { headers: { "content-type": "text/xml" } });
    });
    given({
      AWS_WEB_IDENTITY_TOKEN_FILE: await aFile("token", "jwt"),
      AWS_ROLE_ARN: "arn:aws:iam::1:role/floodgate",
      AWS_ENDPOINT_URL_STS: sts.url,
    });
    await using store = await aStore({});
    await store.objects.ping();
    expect(asked.join()).toContain("WebIdentityToken=jwt");
    expect(store.requests[0]?.headers.get("authorization")).toContain("AKIAASSUMED/");
    expect(store.requests[0]?.headers.get("x-amz-security-token")).toBe("assumed");
  });

  test("of a container, again before they expire", async () => {
    let nth = 0;
    await using role = serving(() =>
      Response.json({
        AccessKeyId: `AKIAROLE${++nth}`,
        SecretAccessKey: "x",
        Token: `token${nth}`,
        Expiration: new Date(Date.now() + 20_000).toISOString(),
      }),
    );
    given({ AWS_CONTAINER_CREDENTIALS_FULL_URI: role.url });
    await using store = await aStore({});
    await store.objects.ping();
    expect(store.requests[0]?.headers.get("x-amz-security-token")).toBe("token1");
    const tokens = () => store.requests.map(({ headers }) => headers.get("x-amz-security-token"));
    while (!tokens().includes("token2")) await store.objects.ping();
  });
});

describe("S3_FORCE_PATH_STYLE", () => {
  test.each<[string, Record<string, string>, string]>([
    ["is true where an endpoint is named", {}, "http://localhost:1/bucket/key?"],
    ["can be false there", { S3_FORCE_PATH_STYLE: "false" }, "http://bucket.localhost:1/key?"],
    [
      "is false without an endpoint",
      { S3_ENDPOINT: "" },
      "https://bucket.s3.us-east-1.amazonaws.com/key?",
    ],
    [
      "can be true there",
      { S3_ENDPOINT: "", S3_FORCE_PATH_STYLE: "true" },
      "https://s3.us-east-1.amazonaws.com/bucket/key?",
    ],
  ])("%s", async (_what, env, link) => {
    const objects = new S3Objects(s3Of({ S3_ENDPOINT: "http://localhost:1", ...KEYS, ...env }));
    expect(await objects.link("key", { seconds: 1, filename: "a" })).toStartWith(link);
  });

  test("false makes a store usable that takes virtual-host style only", async () => {
    const server = await s3Server();
    await using store = new VirtualHostStore(server);
    const env = { S3_ENDPOINT: store.endpoint };
    await using app = await TestApp.start({
      store: "s3",
      env: { ...env, S3_FORCE_PATH_STYLE: "false", DOWNLOAD_REDIRECT: "true" },
    });
    const session = await app.aSession();
    const batch = aBatch();
    expect((await app.append(session, batch)).status).toBe(200);
    expect(await app.batches(session)).toEqual([batch]);
    expect((await app.fetch("/readyz")).status).toBe(200);

    const bytes = new Uint8Array(10 * 2 ** 20).fill(7);
    await app.objects.upload("builds/one", chunksOf(bytes, 2 ** 20));
    expect(store.taken.filter((line) => line.includes("partNumber="))).toHaveLength(2);
    const link = await app.objects.link?.("builds/one", { seconds: 60, filename: "a b.apk" });
    const linked = await fetch(link ?? "");
    expect(linked.status).toBe(200);
    expect(Buffer.from(await linked.bytes()).equals(bytes)).toBe(true);
    expect(linked.headers.get("content-disposition")).toContain('filename="a b.apk"');
    await app.objects.remove("builds/one");
    expect(await Array.fromAsync(app.objects.list("builds/"))).toEqual([]);

    const refused = new S3Objects({
      ...server,
      bucket: app.config.s3?.bucket ?? "",
      ...env,
      endpoint: store.endpoint,
    });
    expect(refused.ping()).rejects.toThrow("403");
  });
});

const ASSUMED = `<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>
<AccessKeyId>AKIAASSUMED</AccessKeyId><SecretAccessKey>x</SecretAccessKey><SessionToken>assumed</SessionToken>
<Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`;

function s3Of(env: Record<string, string>): S3Config {
  const { s3 } = readConfig({ S3_BUCKET: "bucket", ...env });
  if (s3 === undefined) throw new Error("no store is configured");
  return s3;
}

/** Sets the environment variables that the SDK itself reads. */
function given(env: Record<string, string>): void {
  for (const name of Object.keys(KEYS)) delete process.env[name];
  Object.assign(process.env, { AWS_EC2_METADATA_DISABLED: "true", ...env });
}

function serving(answer: (request: Request) => Response | Promise<Response>) {
  const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: answer });
  return { url: server.url.origin, [Symbol.asyncDispose]: () => server.stop(true) };
}

/** Configures a store with these variables; it records the requests. */
async function aStore(env: Record<string, string>) {
  const requests: { headers: Headers }[] = [];
  const server = serving(({ headers }) => {
    // Copied: Bun frees the request's headers after the response.
    requests.push({ headers: new Headers(headers) });
    return new Response("<Error><Code>NoSuchKey</Code></Error>", { status: 404 });
  });
  const objects = new S3Objects(s3Of({ S3_ENDPOINT: server.url, ...env }));
  return {
    objects,
    requests,
    link: async () => await objects.link("key", { seconds: 60, filename: "a" }),
    [Symbol.asyncDispose]: async () => {
      await objects[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
    },
  };
}
