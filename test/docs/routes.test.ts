import { join } from "node:path";

import { expect, test } from "bun:test";
import { Type } from "typebox";
import { Value } from "typebox/value";

import { docs } from "../../src/platform/http/docs.ts";
import { policyOf } from "../../src/platform/http/policy.ts";
import { objectOf } from "../support/answers.ts";
import { TestApp } from "../support/app.ts";

/** Any table of the page may list routes, a route in each row. */
const PAGE = join(import.meta.dir, "../../docs/api.md");
const ROW = /^\| `([A-Z]+)` \| `(\/[^`]*)` \| (\w+) \|/gm;

const Documents = Type.Object({
  paths: Type.Record(
    Type.String(),
    Type.Record(
      Type.String(),
      Type.Object({ "x-policy": Type.Tuple([Type.Object({ audience: Type.String() })]) }),
    ),
  ),
});

test("docs/api.md lists every route with the audience that it is mounted for", async () => {
  await using app = await TestApp.start();
  const { paths } = Value.Parse(Documents, await objectOf(app.fetch("/docs/json")));
  const described = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(
      ([
        method,
        {
          "x-policy": [{ audience }],
        },
      ]) => {
        const template = path.replaceAll(/\{(\w+)\}/g, ":$1");
        return `${method.toUpperCase()} ${template} ${audience}`;
      },
    ),
  );
  // The documentation does not describe itself.
  const hidden = docs().routes.map(
    (route) => `${route.method} ${route.path} ${policyOf(route).audience}`,
  );
  const listed = Array.from(
    (await Bun.file(PAGE).text()).matchAll(ROW),
    ([, method, path, caller]) => `${method} ${path} ${caller}`,
  );
  expect(listed.toSorted()).toEqual([...new Set([...described, ...hidden])].toSorted());
});
