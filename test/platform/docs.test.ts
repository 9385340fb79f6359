import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { Type } from "typebox";
import { Value } from "typebox/value";

import { objectOf } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";

const Answer = Type.Object({
  description: Type.String({ minLength: 1 }),
  content: Type.Optional(
    Type.Record(Type.String(), Type.Object({ example: Type.Optional(Type.Unknown()) })),
  ),
});
const Operation = Type.Object({
  summary: Type.String({ minLength: 5 }),
  tags: Type.Array(Type.String(), { minItems: 1 }),
  responses: Type.Record(Type.String(), Answer),
  requestBody: Type.Optional(Type.Object({ content: Type.Record(Type.String(), Type.Object({})) })),
  parameters: Type.Optional(
    Type.Array(
      Type.Object({
        name: Type.String(),
        in: Type.String(),
        required: Type.Optional(Type.Boolean()),
      }),
    ),
  ),
  security: Type.Optional(Type.Array(Type.Record(Type.String(), Type.Unknown()))),
});
type Operation = Type.Static<typeof Operation>;
const Documents = Type.Object({
  openapi: Type.String({ pattern: "^3\\." }),
  info: Type.Object({ title: Type.Literal("Floodgate"), version: Type.String() }),
  paths: Type.Record(Type.String(), Type.Record(Type.String(), Operation)),
  components: Type.Object({ securitySchemes: Type.Record(Type.String(), Type.Unknown()) }),
});

/** The routes that take a session token. */
const DATA = /^post .*\/(append|i|late|images)$/;
const ROUTES = [
  "get /",
  "get /livez",
  "get /metrics",
  "get /presence",
  "get /presence/ws",
  "get /readyz",
  "get /subscribe",
  "get /subscribe/{userid}",
  "get /subscribe/{userid}/client/{clientid}",
  "get /v1/images/{projectId}/{hash}",
  "get /v1/sessions",
  "get /v1/sessions/{sessionID}",
  "get /v1/sessions/{sessionID}/batches",
  "get /v1/sessions/{sessionID}/images",
  "post /ping",
  "post /presence/tokens",
  "post /v1/ios/append",
  "post /v1/ios/i",
  "post /v1/ios/images",
  "post /v1/ios/late",
  "post /v1/ios/start",
  "post /v1/mobile/i",
  "post /v1/mobile/images",
  "post /v1/mobile/late",
  "post /v1/mobile/start",
];

/** What a caller has to show. */
function keysOf(route: string, tags: string[]): string[] {
  if (tags.includes("Reading") || route === "post /presence/tokens") return ["serverKey"];
  if (tags.includes("Presence")) return ["user"];
  return DATA.test(route) ? ["session"] : [];
}

let app: TestApp;
let operations: Map<string, Operation>;
let schemes: string[];

beforeAll(async () => {
  app = await TestApp.start();
  const document = Value.Parse(Documents, await objectOf(app.fetch("/docs/json")));
  schemes = Object.keys(document.components.securitySchemes);
  operations = new Map(
    Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(
        ([method, operation]) => [`${method} ${path}`, operation] as const,
      ),
    ),
  );
});

afterAll(async () => {
  await app[Symbol.asyncDispose]();
});

test("every route is documented, and nothing else", () => {
  expect([...operations.keys()].toSorted()).toEqual(ROUTES);
});

describe.each(ROUTES)("%s", (route) => {
  function operation(): Operation {
    const found = operations.get(route);
    if (found === undefined) throw new Error(`${route} is not documented`);
    return found;
  }

  test("has a success, and an example or description of each answer", () => {
    const answers = Object.entries(operation().responses);
    const success = route === "get /presence/ws" ? "101" : "200";
    expect(answers.map(([status]) => status)).toContain(success);
    for (const [status, { description, content }] of answers) {
      expect([status, description.length > 1]).toEqual([status, true]);
      for (const { example } of Object.values(content ?? {}))
        if (Number(status) >= 400) expect(example).toBeDefined();
    }
  });

  test("names its path parameters, its body and its key", () => {
    const { parameters = [], requestBody, security = [], tags } = operation();
    const inPath = [...route.matchAll(/\{(\w+)\}/g)].map(([, name]) => String(name));
    const named = parameters.filter((one) => one.in === "path").map(({ name }) => name);
    expect(named).toEqual(inPath);
    expect(requestBody !== undefined).toBe(route.startsWith("post"));
    const wanted = keysOf(route, tags);
    expect(security.flatMap((one) => Object.keys(one))).toEqual(wanted);
    for (const scheme of wanted) expect(schemes).toContain(scheme);
  });
});

test("the refusals that tests of the routes meet are documented", () => {
  const expected: [string, number[]][] = [
    ["post /v1/ios/start", [400, 403, 404, 408, 422, 503]],
    ["post /v1/mobile/start", [400, 403, 404, 408, 422, 426, 503]],
    ["post /v1/ios/append", [400, 401, 408, 413, 503]],
    ["post /v1/ios/images", [400, 401, 403, 404, 408, 413, 415, 422, 503]],
    ["get /v1/sessions", [400, 403, 503]],
    ["get /v1/sessions/{sessionID}/batches", [400, 403, 404, 406, 503]],
    ["get /v1/sessions/{sessionID}/images", [400, 403, 404, 503]],
    ["get /v1/images/{projectId}/{hash}", [206, 304, 400, 403, 404, 416, 503]],
    ["get /readyz", [503]],
  ];
  for (const [route, wanted] of expected) {
    const documented = Object.keys(operations.get(route)?.responses ?? {}).map(Number);
    expect(documented).toEqual(expect.arrayContaining(wanted));
  }
});

describe("the page", () => {
  test("needs nothing from another host", async () => {
    const answer = await app.fetch("/docs");
    expect(answer.headers.get("content-type")).toBe("text/html; charset=utf-8");
    const page = await answer.text();
    expect(page).not.toMatch(/(?:https?:)?\/\//);
    const wanted = [...page.matchAll(/(?:href|src|url)(?:=|: )"([^"]+)"/g)].map(([, path]) => path);
    expect(wanted).toEqual(["/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js", "/docs/json"]);
  });

  test.each([
    ["/docs/swagger-ui.css", "text/css", 50_000],
    ["/docs/swagger-ui-bundle.js", "text/javascript", 500_000],
  ])("finds %s here", async (path, type, bytesMin) => {
    const answer = await app.fetch(path);
    expect(answer.headers.get("content-type")).toStartWith(type);
    expect((await answer.bytes()).length).toBeGreaterThan(bytesMin);
  });

  test("has a style sheet that loads nothing from another host", async () => {
    const css = await (await app.fetch("/docs/swagger-ui.css")).text();
    expect([...css.matchAll(/(?:url\(|@import)\s*["']?(?!data:)([^"')]+)/g)]).toEqual([]);
  });
});
