import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import * as fc from "fast-check";
import { Type } from "typebox";
import { Value } from "typebox/value";

import { TestApp } from "../../support/app.ts";
import { DocumentedRoutes } from "../../support/documented-routes.ts";
import { type TestProject, aProject } from "../../support/projects.ts";
import { isRecord } from "../../../src/platform/json.ts";
import { type Documented } from "../../support/schema-values.ts";
import { readSources } from "../../support/tidy.ts";

const JSON_TYPE = "application/json";
const FORM_TYPE = "multipart/form-data";
const RUNS = { numRuns: 30 };
const Refusal = Type.Object({ reason: Type.String() });

type Fields = Record<string, unknown>;

let routes: DocumentedRoutes;
let page: TestProject;

beforeAll(async () => {
  routes = await DocumentedRoutes.of(await TestApp.start());
  page = await aProject(routes.app, { platform: "web" });
});

afterAll(async () => await routes[Symbol.asyncDispose]());

test("every body and parameter is documented by a schema", () => {
  const without = [...routes.operations].flatMap(([route, { parameters = [], requestBody }]) => {
    const bodies = Object.values(requestBody?.content ?? {});
    const schemas = [...bodies, ...parameters].map(({ schema }) => schema);
    const isBodiless = /^(?:post|put|patch) /.test(route) && bodies.length === 0;
    const isVague = schemas.some((schema) => routes.values.forbidden(schema) === undefined);
    return isBodiless || isVague ? [route] : [];
  });
  expect(without).toEqual([]);
});

test("handlers read queries and bodies through the readers of schemas alone", async () => {
  const sources = await readSources("src/**/*.ts");
  const reading = [...sources].filter(([, text]) =>
    /\bnew URLSearchParams\(|\bsearchParams\b|\brequest\.(?:json|text|formData)\(/.test(text),
  );
  expect(reading.map(([path]) => path)).toEqual([
    "src/platform/http/parameters.ts",
    // Encodes the body of a request to Google.
    "src/push/access-token.ts",
  ]);
});

/** Routes with a JSON body; some need values that exist, or that are right beyond their form. */
const BODIES: [route: string, completed?: (body: Fields) => Fields][] = [
  ["put /devices"],
  ["post /devices/{external_id}/properties/{add}"],
  ["post /devices/-/{search}"],
  ["post /notifications"],
  ["put /notifications/{uuid}/status"],
  ["post /notifications/{uuid}/{launch}"],
  [
    "post /internal/devices/logs/{action}",
    (body) => ({ ...body, notification_id: routes.notificationId }),
  ],
  ["post /internal/notifications/{uuid}/{action}"],
  ["post /ping"],
  ["post /presence/tokens"],
  ["post /v1/ios/start", started],
  ["post /v1/mobile/start", started],
  ["post /v1/web/start", startedPage],
  ["post /v1/sdk/start", startedPage],
  ["post /api/v1/users"],
  ["patch /api/v1/updates/{version}"],
];

function started(body: Fields): Fields {
  const { projectID } = routes.app;
  return { ...body, projectID, projectKey: null, trackerVersion: "1.0.14" };
}

function startedPage(body: Fields): Fields {
  return { ...body, projectID: null, projectKey: page.projectKey, trackerVersion: "19.0.1" };
}

test("all routes with a JSON body are tried here", () => {
  const tried = BODIES.map(([route]) => route);
  expect(routes.taking(JSON_TYPE).toSorted()).toEqual(tried.toSorted());
});

describe.each(BODIES)("the body of %s", (route, completed = (body) => body) => {
  const content = () => routes.body(route, JSON_TYPE);

  test("has an example that its schema admits", () => {
    expect(routes.values.admits(content().schema, content().example)).toBe(true);
  });

  test("may be anything that its schema admits", async () => {
    await fc.assert(
      fc.asyncProperty(routes.values.objects(content().schema), async (fields) => {
        const body = JSON.stringify(completed(fields));
        expect(await routes.status(route, { body })).toBe(200);
      }),
      RUNS,
    );
  });

  test("is refused if its schema forbids it", async () => {
    const wrong = routes.values.forbidden(content().schema) ?? fc.constant(null);
    await fc.assert(
      fc.asyncProperty(wrong, async (value) => {
        expect(await routes.status(route, { body: JSON.stringify(value) })).toBe(400);
      }),
      RUNS,
    );
  });
});

test("a field of another route is refused wherever devices and campaigns take a body", async () => {
  const push = routes
    .taking(JSON_TYPE)
    .filter((route) => routes.operations.get(route)?.tags.includes("Push"));
  const fieldsOf = (route: string) =>
    Object.keys(routes.body(route, JSON_TYPE).schema.properties ?? {});
  const all = new Set(push.flatMap(fieldsOf));
  for (const route of push)
    for (const field of all.difference(new Set(fieldsOf(route)))) {
      const example = Object(routes.body(route, JSON_TYPE).example);
      const body = JSON.stringify({ ...example, [field]: 1 });
      const { reason } = Value.Parse(Refusal, await (await routes.send(route, { body })).json());
      expect([route, reason]).toEqual([route, `${field} has no effect here`]);
    }
});

describe("the form of a build", () => {
  const ROUTE = "post /api/v1/updates";
  const FILE = "tmpFile";

  function schemas(): [string, Documented][] {
    const { properties = {} } = routes.body(ROUTE, FORM_TYPE).schema;
    return Object.entries(properties).filter(([name]) => name !== FILE);
  }

  async function published(fields: Fields): Promise<number> {
    const form = new FormData();
    for (const [name, value] of Object.entries(fields)) form.set(name, String(value));
    form.set(FILE, new File(["bytes"], "app.apk"));
    return await routes.status(ROUTE, { body: form });
  }

  test("may have anything that its schema admits", async () => {
    await fc.assert(
      fc.asyncProperty(routes.values.texts(schemas(), ["appVersion"]), async (fields) => {
        expect(await published(fields)).toBe(200);
      }),
      { numRuns: 15 },
    );
  });

  test("is refused if its schema forbids a field", async () => {
    for (const [name, schema] of schemas())
      for (const wrong of routes.values.forbiddenTexts(schema)) {
        const fields = { appVersion: "2267_01", [name]: wrong };
        expect([fields, await published(fields)]).toEqual([fields, 400]);
      }
  });
});

/** Routes whose query is checked, with the statuses of an answer to one that is right. */
const QUERIES: [route: string, statuses: number[]][] = [
  ["get /v1/sessions", [200]],
  ["get /v1/sessions/{sessionID}/batches", [200]],
  ["get /v1/sessions/{sessionID}/images", [200]],
  ["get /v1/sessions/{sessionID}/replay/{file}", [404]],
  ["get /v1/images/{projectId}/{hash}", [404]],
  ["get /notifications", [200]],
  ["get /devices/{external_id}/notifications", [200]],
  ["get /presence", [200]],
  ["get /subscribe", [200]],
  ["get /subscribe/{userid}", [200]],
  ["get /subscribe/{userid}/client/{clientid}", [200]],
  ["get /presence/ws", [426]],
  ["get /api/v1/users", [200]],
  ["get /api/v1/updates/{version}", [200, 404]],
];

test("all routes with a query are tried here", () => {
  const documented = [...routes.operations.keys()].filter(
    (route) => route.startsWith("get ") && routes.query(route).schemas.length > 0,
  );
  expect(documented.toSorted()).toEqual(QUERIES.map(([route]) => route).toSorted());
});

// The head of a request has at most 16 KiB.
const QUERY_LENGTH_MAX = 12_000;

function queryOf(fields: Fields): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(fields))
    if (isRecord(value))
      for (const [key, one] of Object.entries(value)) query.set(`${name}[${key}]`, String(one));
    else query.set(name, String(value));
  return query.toString();
}

describe.each(QUERIES)("the query of %s", (route, statuses) => {
  /** A cursor is right only if the route gave it out. */
  const schemas = () => routes.query(route).schemas.filter(([name]) => name !== "cursor");
  const queries = (without: string[] = []) =>
    routes.values
      .texts(
        schemas().filter(([name]) => !without.includes(name)),
        routes.query(route).required,
      )
      .map((fields) => `?${queryOf(fields)}`)
      .filter((query) => query.length <= QUERY_LENGTH_MAX);

  test("may be anything that its schemas admit", async () => {
    await fc.assert(
      fc.asyncProperty(queries(), async (query) => {
        expect(statuses).toContain(await routes.status(route, { query }));
      }),
      RUNS,
    );
  });

  test("is refused if its schemas forbid it", async () => {
    for (const [name, schema] of schemas())
      for (const wrong of routes.values.forbiddenTexts(schema)) {
        const [right] = fc.sample(queries([name]), 1);
        const query = `${right}&${queryOf({ [name]: wrong })}`;
        expect([query, await routes.status(route, { query })]).toEqual([query, 400]);
      }
  });
});
