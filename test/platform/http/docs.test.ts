import { beforeAll, describe, expect, test } from "bun:test";
import { Type } from "typebox";
import { Value } from "typebox/value";

import { objectOf } from "../../support/answers.ts";
import { TestApp } from "../../support/app.ts";

const Answer = Type.Object({
  description: Type.String({ minLength: 1 }),
  content: Type.Optional(
    Type.Record(Type.String(), Type.Object({ example: Type.Optional(Type.Unknown()) })),
  ),
});
const Operation = Type.Object({
  summary: Type.String({ minLength: 5 }),
  description: Type.Optional(Type.String()),
  tags: Type.Array(Type.String(), { minItems: 1 }),
  responses: Type.Record(Type.String(), Answer),
  requestBody: Type.Optional(Type.Object({ content: Type.Record(Type.String(), Type.Object({})) })),
  parameters: Type.Optional(
    Type.Array(
      Type.Object({
        name: Type.String(),
        in: Type.String(),
        required: Type.Optional(Type.Boolean()),
        description: Type.Optional(Type.String()),
        example: Type.Optional(Type.Unknown()),
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
const DATA = /^post .*\/(append|i|late|images)$|\/v1\/web\/(?:tags|uxt\/)|\/conditions\//;
const ROUTES = [
  "get /",
  "get /api/v1/updates",
  "get /api/v1/updates/{version}",
  "get /api/v1/users",
  "get /devices/{external_id}",
  "get /devices/{external_id}/notifications",
  "get /livez",
  "get /metrics",
  "get /notifications",
  "get /notifications/{uuid}",
  "get /presence",
  "get /presence/ws",
  "get /readyz",
  "get /source/{first}",
  "get /source/{first}/{second}",
  "get /source/{first}/{second}/{third}",
  "get /subscribe",
  "get /subscribe/{userid}",
  "get /subscribe/{userid}/client/{clientid}",
  "get /v1/images/{projectId}/{hash}",
  "get /v1/mobile/conditions/{projectID}",
  "get /v1/sessions",
  "get /v1/sessions/{sessionID}",
  "get /v1/sessions/{sessionID}/batches",
  "get /v1/sessions/{sessionID}/images",
  "get /v1/sessions/{sessionID}/replay",
  "get /v1/sessions/{sessionID}/replay/{file}",
  "get /v1/web/conditions/{projectID}",
  "get /v1/web/tags",
  "patch /api/v1/updates/{version}",
  "post /api/v1/updates",
  "post /api/v1/users",
  "post /devices/-/{search}",
  "post /devices/{external_id}/properties/{add}",
  "post /internal/devices/logs/{action}",
  "post /internal/notifications/{uuid}/{action}",
  "post /notifications",
  "post /notifications/{uuid}/{launch}",
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
  "post /v1/sdk/i",
  "post /v1/sdk/start",
  "post /v1/web/feature-flags",
  "post /v1/web/i",
  "post /v1/web/images",
  "post /v1/web/not-started",
  "post /v1/web/start",
  "post /v1/web/uxt/signals/task",
  "post /v1/web/uxt/signals/test",
  "put /devices",
  "put /notifications/{uuid}/status",
];
/** The routes of the update server that need no signature. */
const PUBLIC = /^get \/(?:source\/|api\/v1\/updates\/)/;
const PUSH = ROUTES.filter((route) => /^\w+ \/(?:devices|notifications|internal)/.test(route));

/** What a caller has to show. */
function keysOf(route: string, tags: string[]): string[] {
  if (tags.includes("Reading") || tags.includes("Push") || route === "post /presence/tokens")
    return ["serverKey"];
  if (tags.includes("Presence")) return ["user"];
  if (tags.includes("Updates")) return PUBLIC.test(route) ? [] : ["signature"];
  return DATA.test(route) ? ["session"] : [];
}

const app = TestApp.forTests();
let operations: Map<string, Operation>;
let schemes: string[];

beforeAll(async () => {
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

function operationOf(route: string): Operation {
  const found = operations.get(route);
  if (found === undefined) throw new Error(`${route} is not documented`);
  return found;
}

test("every route is documented, and nothing else", () => {
  expect([...operations.keys()].toSorted()).toEqual(ROUTES);
});

describe.each(ROUTES)("%s", (route) => {
  const operation = () => operationOf(route);

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
    expect(requestBody !== undefined).toBe(/^(?:post|put|patch) /.test(route));
    const wanted = keysOf(route, tags);
    expect(security.flatMap((one) => Object.keys(one))).toEqual(wanted);
    for (const scheme of wanted) expect(schemes).toContain(scheme);
  });
});

test("nobody must send what has a default, or what the server does without", () => {
  const required = [...operations].flatMap(([route, { parameters = [] }]) =>
    parameters
      .filter((one) => one.in === "query" && one.required === true)
      .map(({ name }) => `${route} ${name}`),
  );
  expect(required).toEqual([
    "get /v1/sessions projectId",
    "get /subscribe users",
    "get /presence users",
  ]);
});

test("downloads are described with examples of their links and with what they refuse", () => {
  for (const route of ROUTES.filter((one) => one.startsWith("get /source/"))) {
    const { parameters = [], responses } = operationOf(route);
    for (const { name, example } of parameters)
      expect([route, name, typeof example]).toEqual([route, name, "string"]);
    for (const status of ["404", "416"])
      expect(responses[status]?.content?.["text/plain"]?.example).toBeString();
  }
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
    ["get /v1/sessions/{sessionID}/replay", [403, 404, 503]],
    [
      "get /v1/sessions/{sessionID}/replay/{file}",
      [206, 304, 400, 403, 404, 406, 410, 412, 416, 503],
    ],
    ["get /v1/images/{projectId}/{hash}", [206, 304, 400, 403, 404, 416, 503]],
    ["get /readyz", [503]],
    ["post /api/v1/users", [400, 401, 403, 408, 413, 503]],
    ["get /api/v1/users", [400, 401, 403, 503]],
    ["put /devices", [400, 403, 413]],
    ["get /devices/{external_id}", [403, 404]],
    ["post /devices/{external_id}/properties/{add}", [400, 403, 404, 413]],
    ["get /devices/{external_id}/notifications", [400, 403, 404]],
    ["post /devices/-/{search}", [400, 403, 413]],
    ["post /notifications", [400, 403, 413]],
    ["get /notifications", [400, 403]],
    ["get /notifications/{uuid}", [403, 404]],
    ["put /notifications/{uuid}/status", [400, 403, 404, 413]],
    ["post /notifications/{uuid}/{launch}", [400, 403, 404, 409, 413]],
    ["post /internal/devices/logs/{action}", [400, 403, 413]],
    ["post /internal/notifications/{uuid}/{action}", [400, 403, 404, 413]],
  ];
  const missing = expected.flatMap(([route, wanted]) => {
    const documented = Object.keys(operations.get(route)?.responses ?? {}).map(Number);
    return wanted.filter((status) => !documented.includes(status)).map((one) => `${route} ${one}`);
  });
  expect(missing).toEqual([]);
});

describe("the routes of devices and notifications", () => {
  test("are told from the others by their tag", () => {
    const tagged = [...operations].filter(([, { tags }]) => tags.includes("Push"));
    expect(tagged.map(([route]) => route).toSorted()).toEqual(PUSH);
  });

  test.each(PUSH)("%s shows its errors and its successes in the envelope", (route) => {
    for (const [status, { content = {} }] of Object.entries(operations.get(route)?.responses ?? {}))
      expect([status, content["application/json"]?.example]).toEqual([
        status,
        status === "200"
          ? { success: true, result: expect.anything(), reason: null }
          : { success: false, result: null, reason: expect.any(String) },
      ]);
  });

  test.each<[string, unknown]>([
    ["get /devices/{external_id}", expect.objectContaining({ external_id: expect.any(String) })],
    [
      "get /devices/{external_id}/notifications",
      { total: expect.any(Number), events: expect.any(Array) },
    ],
    ["post /devices/-/{search}", [expect.objectContaining({ external_id: expect.any(String) })]],
    ["get /notifications", [expect.objectContaining({ uuid: expect.any(String) })]],
    ["get /notifications/{uuid}", expect.objectContaining({ uuid: expect.any(String) })],
    ["post /internal/devices/logs/{action}", expect.any(Number)],
    [
      "post /internal/notifications/{uuid}/{action}",
      { ios: expect.any(Number), android: expect.any(Number) },
    ],
  ])("%s shows a result as it answers them", (route, result) => {
    const { content } = operations.get(route)?.responses["200"] ?? {};
    expect(content?.["application/json"]?.example).toMatchObject({ result });
  });

  test.each([
    ["post /devices/-/{search}", [":search"]],
    ["post /devices/{external_id}/properties/{add}", [":add"]],
    ["post /notifications/{uuid}/{launch}", [":launch", ":estimate"]],
    ["post /internal/devices/logs/{action}", ["notification:add"]],
    ["post /internal/notifications/{uuid}/{action}", ["sent:increase"]],
  ])("%s says what is written there", (route, literals) => {
    const { summary, description = "", parameters = [] } = operations.get(route) ?? {};
    const texts = [summary, description, ...parameters.map((one) => one.description)].join(" ");
    for (const literal of literals) expect(texts).toContain(literal);
  });

  test.each([
    ["get /devices/{external_id}/notifications", ["events", "order_bys", "size", "start"]],
    ["get /notifications", ["order_bys", "size", "start", "status"]],
  ])("%s names what its query may have", (route, names) => {
    const parameters = operations.get(route)?.parameters ?? [];
    const named = parameters.filter((one) => one.in === "query").map(({ name }) => name);
    expect(named.toSorted()).toEqual(names);
  });
});
