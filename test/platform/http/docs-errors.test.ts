import { afterAll, beforeAll, expect, test } from "bun:test";
import { Type } from "typebox";
import { Value } from "typebox/value";

import { objectOf } from "../../support/answers.ts";
import { TestApp } from "../../support/app.ts";

const Operation = Type.Object({
  "x-policy": Type.Tuple([Type.Object({ audience: Type.String() })]),
  tags: Type.Array(Type.String()),
  security: Type.Array(Type.Record(Type.String(), Type.Unknown())),
  parameters: Type.Optional(Type.Array(Type.Object({ in: Type.String() }))),
  requestBody: Type.Optional(Type.Unknown()),
  responses: Type.Record(
    Type.String(),
    Type.Object({
      content: Type.Optional(
        Type.Record(Type.String(), Type.Object({ example: Type.Optional(Type.Unknown()) })),
      ),
    }),
  ),
});
const Documents = Type.Object({
  paths: Type.Record(Type.String(), Type.Record(Type.String(), Operation)),
});

let app: TestApp;
let operations: [route: string, operation: Type.Static<typeof Operation>][];

beforeAll(async () => {
  app = await TestApp.start();
  const { paths } = Value.Parse(Documents, await objectOf(app.fetch("/docs/json")));
  operations = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, one]): (typeof operations)[number] => [
      `${method} ${path}`,
      one,
    ]),
  );
});

afterAll(async () => await app[Symbol.asyncDispose]());

test("errors follow from who calls a route, from its credential and from its input", () => {
  for (const [route, operation] of operations) {
    const { parameters = [], requestBody, responses, security } = operation;
    const [{ audience }] = operation["x-policy"];
    const credentials = security.flatMap((one) => Object.keys(one));
    const isOpen = audience === "sdk" || audience === "app" || audience === "publisher";
    const expected = {
      401: ["session", "user", "signature"].some((one) => credentials.includes(one)),
      403: ["serverKey", "signature"].some((one) => credentials.includes(one)),
      ...((requestBody !== undefined || parameters.some((one) => one.in === "query")) && {
        400: true,
      }),
      // A start of a mobile SDK over the limit is answered 400.
      413: requestBody !== undefined && !/\/(?:ios|mobile)\/start$/.test(route),
      415: requestBody !== undefined,
      429: isOpen,
      503: isOpen || audience === "backend" || route === "get /readyz",
    };
    const described = Object.fromEntries(
      Object.keys(expected).map((status) => [status, status in responses]),
    );
    // Starts, uploads and conditions are also refused because of their project.
    const mayForbid = /\/(?:start|images|\{projectID\})$/.test(route) && {
      403: "403" in responses,
    };
    expect({ route, ...described }).toEqual({ route, ...expected, ...mayForbid });
  }
});

test("every error is shown as its route sends it", () => {
  for (const [route, { responses, tags }] of operations)
    for (const [status, { content = {} }] of Object.entries(responses)) {
      if (Number(status) < 400 || route === "get /readyz") continue;
      const [[type, shown] = []] = Object.entries(content);
      const text = expect.any(String);
      const formats: Record<string, unknown[]> = {
        Push: ["application/json", { success: false, result: null, reason: text }],
        Updates: ["text/plain", expect.stringMatching(/.\n$/)],
      };
      const format = formats[tags[0] ?? ""] ?? ["application/json", { error: text }];
      expect([route, status, [type, shown?.example]]).toEqual([route, status, format]);
    }
});

test("the document is the same each time", async () => {
  const texts = [await app.fetch("/docs/json"), await app.fetch("/docs/json")];
  const [first, second] = await Promise.all(texts.map(async (answer) => await answer.text()));
  expect(second).toBe(first ?? "");
});
