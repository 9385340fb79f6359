import { afterAll, beforeAll, expect, test } from "bun:test";
import { Type } from "typebox";
import { Value } from "typebox/value";

import { refusalOf } from "../../support/answers.ts";
import { TestApp } from "../../support/app.ts";

const Parameter = Type.Object({ name: Type.String(), schema: Type.Optional(Type.Unknown()) });
const Operation = Type.Object({
  parameters: Type.Optional(Type.Array(Parameter)),
  requestBody: Type.Optional(Type.Unknown()),
});
const Documents = Type.Object({
  paths: Type.Record(Type.String(), Type.Record(Type.String(), Operation)),
});

let app: TestApp;
let paths: Type.Static<typeof Documents>["paths"];

beforeAll(async () => {
  app = await TestApp.start();
  ({ paths } = Value.Parse(Documents, await (await app.fetch("/docs/json")).json()));
});
afterAll(async () => await app[Symbol.asyncDispose]());

test.each([
  ["/v1/sessions", "limit", 1, 1000, 100],
  ["/v1/sessions", "projectId", 0, 2 ** 31 - 1, undefined],
  ["/v1/sessions/{sessionID}/images", "limit", 1, 1000, 100],
  ["/notifications", "size", 1, 1000, 10],
  ["/notifications", "start", 0, 2 ** 31 - 1, 0],
  ["/notifications", "status", 0, 5, undefined],
  ["/devices/{external_id}/notifications", "size", 1, 1000, 10],
])("%s describes %s by the bounds by which it is read", (path, wanted, min, max, absent) => {
  const parameter = paths[path]?.["get"]?.parameters?.find(({ name }) => name === wanted);
  expect(parameter?.schema).toMatchObject({
    type: "integer",
    minimum: min,
    maximum: max,
    ...(absent !== undefined && { default: absent }),
  });
});

const problem = (name: string) => `${name} must be a whole number from 1 to 1000`;

test.each(["0", "1001", "-1", "+1", "1e1", "0x10", "10.0", "%2010", "x", "", "1".repeat(20)])(
  "a whole number is refused beyond its bounds, and in anything but decimal digits: %p",
  async (text) => {
    const sessions = app.fetch(`/v1/sessions?projectId=0&limit=${text}`);
    expect(await refusalOf(sessions)).toEqual([400, problem("limit")]);
    const campaigns = await app.fetch(`/notifications?size=${text}`);
    expect(campaigns.status).toBe(400);
    expect(await campaigns.json()).toMatchObject({ reason: problem("size") });
  },
);

test("a change of a build is described by the schema that it must meet", () => {
  expect(paths["/api/v1/updates/{version}"]?.["patch"]?.requestBody).toMatchObject({
    content: {
      "application/json": {
        schema: {
          type: "object",
          additionalProperties: false,
          properties: { rollout: { type: "number", minimum: 0, maximum: 100 } },
        },
      },
    },
  });
});
