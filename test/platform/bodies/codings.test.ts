import { Type } from "typebox";
import { Value } from "typebox/value";
import { beforeAll, describe, expect, test } from "bun:test";

import { objectOf } from "../../support/answers.ts";
import { TestApp } from "../../support/app.ts";
import { ENCODERS, codingName } from "../../support/codings.ts";
import { aSignature } from "../../support/updates.ts";

const SERVER_KEY = "key-of-the-test";

const Operation = Type.Object({
  requestBody: Type.Optional(
    Type.Object({
      content: Type.Record(Type.String(), Type.Object({ example: Type.Optional(Type.Unknown()) })),
    }),
  ),
});
const Document = Type.Object({
  paths: Type.Record(Type.String(), Type.Record(Type.String(), Operation)),
});

const Drafted = Type.Object({ result: Type.Object({ uuid: Type.String() }) });

type Route = { method: string; path: string; example: unknown };

const app = TestApp.forTests({ env: { SERVER_KEYS: SERVER_KEY } });
let routes: Route[];
let headers: (path: string) => Record<string, string>;

beforeAll(async () => {
  const key = { "x-server-key": SERVER_KEY };
  const { token } = await app.aSession();
  const minted = app.post("/presence/tokens", '{"userid":"ann","clientid":"phone"}', key);
  const user = String((await objectOf(minted))["token"]);
  const drafted = await app.post(
    "/notifications",
    '{"title":"a","body":"b","conditions":{},"scheduled_at":"2030-01-01T00:00:00Z"}',
    key,
  );
  const { result } = Value.Parse(Drafted, await drafted.json());
  await app.fetch("/devices", {
    method: "PUT",
    headers: key,
    body: '{"external_id":"d1","push_token":"t","send_platform":1,"device_platform":1}',
  });
  const [client, service] = [await aSignature(app, "client"), await aSignature(app, "service")];
  headers = (path) => ({
    ...key,
    authorization: `Bearer ${path === "/ping" ? user : token}`,
    signature: path === "/api/v1/users" ? client : service,
    "content-type": /images$|updates$/.test(path) ? "multipart/form-data; boundary=x" : "",
  });
  const parameters: Record<string, string> = {
    "/notifications/{uuid}/{launch}": "/notifications/-/:estimate",
    "/internal/devices/logs/{action}": "/internal/devices/logs/notification:add",
    "/internal/notifications/{uuid}/{action}": `/internal/notifications/${result.uuid}/sent:increase`,
  };
  const fill = (path: string) =>
    (parameters[path] ?? path)
      .replace("{external_id}", "d1")
      .replace("{uuid}", result.uuid)
      .replace("{version}", "1")
      .replaceAll(/\{(\w+)\}/g, ":$1");
  const { paths } = Value.Parse(Document, await (await app.fetch("/docs/json")).json());
  routes = Object.entries(paths).flatMap(([path, operations]) =>
    Object.entries(operations)
      .filter(([method]) => method !== "get")
      .map(([method, { requestBody }]) => ({
        method: method.toUpperCase(),
        path: fill(path),
        example: requestBody?.content["application/json"]?.example,
      })),
  );
});

async function answer(
  { method, path }: Route,
  body: Uint8Array,
  coding?: string,
): Promise<Response> {
  return await app.fetch(path, {
    method,
    body,
    headers: { ...headers(path), ...(coding !== undefined && { "content-encoding": coding }) },
  });
}

describe("every route that takes a body", () => {
  test("is there", () => {
    expect(routes.length).toBeGreaterThan(20);
    expect(routes.filter(({ example }) => example !== undefined).length).toBeGreaterThan(10);
  });

  test("refuses one in a coding that nobody knows, and says which it takes", async () => {
    for (const route of routes) {
      const { status, headers: told } = await answer(route, Buffer.from("{}"), "lzma");
      expect({ ...route, status, accepts: told.get("accept-encoding") }).toEqual({
        ...route,
        status: 415,
        accepts: "gzip, deflate, br, zstd",
      });
    }
  });

  test("takes JSON in every coding as it takes it plain", async () => {
    for (const route of routes.filter(({ example }) => example !== undefined)) {
      const body = Buffer.from(JSON.stringify(route.example));
      const { status } = await answer(route, body);
      // The body was read, so an error can only be about its content.
      expect([200, 404]).toContain(status);
      for (const [encoder, encode] of Object.entries(ENCODERS)) {
        const encoded = await answer(route, encode(body), codingName(encoder).toUpperCase());
        expect({ ...route, encoder, status: encoded.status }).toEqual({
          ...route,
          encoder,
          status,
        });
      }
      const unsaid = await answer(route, ENCODERS["gzip"]?.(body) ?? body);
      expect({ ...route, status: unsaid.status }).toEqual({ ...route, status });
    }
  });

  test("refuses one that grows over its limit", async () => {
    const bomb = ENCODERS["gzip"]?.(new Uint8Array(20_000_000)) ?? new Uint8Array();
    for (const route of routes.filter(({ example }) => example !== undefined)) {
      const { status } = await answer(route, bomb, "gzip");
      const isMobileStart = /^\/v1\/(?:ios|mobile)\/start$/.test(route.path);
      const expected = isMobileStart ? 400 : 413;
      expect({ ...route, status }).toEqual({ ...route, status: expected });
    }
  });
});
