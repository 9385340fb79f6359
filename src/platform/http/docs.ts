import { dirname, join } from "node:path";
import { swagger } from "@elysiajs/swagger";
import { Elysia } from "elysia";
import { Type } from "typebox";
import { Value } from "typebox/value";

import { version } from "../../../package.json" with { type: "json" };
import { renderError } from "../errors.ts";
import { mount } from "./policy.ts";

const SPEC = "/docs/json";
/** The part of an OpenAPI document that `withoutDefaults` changes. */
const Documents = Type.Object({
  paths: Type.Record(
    Type.String(),
    Type.Record(
      Type.String(),
      Type.Object({
        parameters: Type.Optional(
          Type.Array(
            Type.Object({
              required: Type.Optional(Type.Boolean()),
              schema: Type.Optional(Type.Object({ default: Type.Optional(Type.Unknown()) })),
            }),
          ),
        ),
      }),
    ),
  ),
});

const ASSETS = dirname(Bun.resolveSync("swagger-ui-dist/package.json", import.meta.dir));

// The plugin's own page loads its script from a CDN; this one works on a machine without internet.
const PAGE = `<!doctype html>
<html lang="en">
<meta charset="utf-8" />
<meta name="viewport" content="width=device-width, initial-scale=1" />
<title>Floodgate API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css" />
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({ url: "/docs/json", dom_id: "#swagger-ui" });</script>
</html>`;

const DESCRIPTIONS: Record<number, string> = {
  400: "The request is malformed",
  401: "The token is missing, forged or expired: start a new session",
  403: "Not allowed",
  404: "No such resource",
  406: "The caller accepts none of the available representations",
  408: "The body arrived too slowly",
  409: "Not possible in its present state",
  410: "The stored bytes are missing or damaged",
  412: "The file is not the one that the request expects",
  413: "The body is too large",
  415: "The media type or content coding is not supported",
  416: "The range is outside the file",
  422: "The identifier cannot be decoded",
  426: "The SDK is too old",
  429: "Over a limit or quota: send it again after Retry-After seconds",
  503: "Unavailable or not stored: send it again after Retry-After seconds",
};

/** Describes error responses of a route. */
export function errors(...statuses: number[]) {
  return errorsLike({ error: "what is wrong" }, statuses);
}

/**
 * Describes error responses that look like the example. A route that limits its body (413) also
 * refuses unknown content codings (415).
 */
export function errorsLike(example: object, statuses: number[]) {
  const all = statuses.includes(413) ? new Set([...statuses, 415]) : statuses;
  return Object.fromEntries(
    Array.from(all, (status) => [status, json(example, DESCRIPTIONS[status])]),
  );
}

/** Describes an optional query parameter. */
export function queryParameter(name: string, description: string) {
  return { name, in: "query" as const, description, schema: { type: "string" as const } };
}

/** Describes a JSON response by an example. */
export function json(example: object, description = "OK") {
  return { description, content: { "application/json": { example } } };
}

/** Describes a JSON body by an example, and by the schema that it must meet if there is one. */
export function jsonBody(example: object, schema?: object) {
  const content = { example, ...(schema && { schema }) };
  return { requestBody: { required: true, content: { "application/json": content } } };
}

/** Serves the API documentation at /docs and its OpenAPI document at /docs/json. */
export function docs() {
  return new Elysia({
    name: "docs",
    ...mount({ audience: "operator", tag: "Operation", errors: renderError }),
  })
    .onAfterHandle(({ path, response }) => (path === SPEC ? withoutDefaults(response) : undefined))
    .use(
      swagger({
        path: "/docs",
        specPath: SPEC,
        provider: "swagger-ui",
        documentation: {
          info: {
            title: "Floodgate",
            version,
            description: "The device backend for mobile and web SDKs. A 200 means durable.",
          },
          components: {
            securitySchemes: {
              session: {
                type: "http",
                scheme: "bearer",
                description: "Token from the response of a session start",
              },
              user: {
                type: "http",
                scheme: "bearer",
                description: "User token from the response of POST /presence/tokens",
              },
              serverKey: { type: "apiKey", in: "header", name: "X-Server-Key" },
              signature: {
                type: "apiKey",
                in: "header",
                name: "signature",
                description: "API key printed by `floodgate signature create`",
              },
            },
          },
        },
      }),
    )
    .get(
      "/docs",
      () => new Response(PAGE, { headers: { "content-type": "text/html; charset=utf-8" } }),
      { detail: { hide: true } },
    )
    .get("/docs/swagger-ui.css", () => asset("swagger-ui.css"), { detail: { hide: true } })
    .get("/docs/swagger-ui-bundle.js", () => asset("swagger-ui-bundle.js"), {
      detail: { hide: true },
    });
}

/** Marks parameters with a default as optional; the plugin lists them as required. */
function withoutDefaults(document: unknown): unknown {
  const { paths } = Value.Parse(Documents, document);
  const operations = Object.values(paths).flatMap((methods) => Object.values(methods));
  for (const parameter of operations.flatMap(({ parameters = [] }) => parameters))
    if (parameter.schema?.default !== undefined) parameter.required = false;
  return Object.assign({}, document, { paths });
}

function asset(name: string) {
  return Bun.file(join(ASSETS, name));
}
