import { dirname, join } from "node:path";
import { swagger } from "@elysiajs/swagger";
import { type TProperties } from "@sinclair/typebox";
import { Elysia } from "elysia";
import { Type } from "typebox";
import { Value } from "typebox/value";

import { version } from "../../../package.json" with { type: "json" };
import { AppError, renderError } from "../errors.ts";
import { type Input } from "../input.ts";
import { type Policy, mount, traitsOf } from "./policy.ts";

const SPEC = "/docs/json";

const Shown = Type.Object({ default: Type.Optional(Type.Unknown()) });
const Operation = Type.Object({
  "x-policy": Type.Tuple([Type.Unsafe<Policy>(Type.Object({}))]),
  security: Type.Array(Type.Record(Type.String(), Type.Unknown())),
  parameters: Type.Optional(
    Type.Array(
      Type.Object({
        in: Type.String(),
        required: Type.Optional(Type.Boolean()),
        schema: Type.Optional(Shown),
      }),
    ),
  ),
  requestBody: Type.Optional(Type.Unknown()),
  responses: Type.Record(Type.String(), Type.Object({ description: Type.Optional(Type.String()) })),
});
type Operation = Type.Static<typeof Operation>;
/** The part of an OpenAPI document that is completed here. */
const Documents = Type.Object({
  components: Type.Object({
    schemas: Type.Record(Type.String(), Type.Object({ $id: Type.Optional(Type.String()) })),
  }),
  paths: Type.Record(Type.String(), Type.Record(Type.String(), Operation)),
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
  426: "The client or its protocol is too old",
  429: "Over a limit or quota: send it again after Retry-After seconds",
  503: "Unavailable or not stored: send it again after Retry-After seconds",
};

type Texts = Record<number, string | undefined>;

/** Says, in place of a text, that a route never answers so. */
export const NEVER = "";

/** Error texts of callers without the credential. */
const REFUSALS: Record<string, Texts> = {
  session: { 401: DESCRIPTIONS[401] },
  user: { 401: "missing token" },
  serverKey: { 403: "missing X-Server-Key" },
  signature: { 401: "record not found", 403: "forbidden" },
};

/**
 * Describes errors of a route, by their texts if clients know these. `/docs` adds those that follow
 * from its policy and its input, and shows all in the format of the slice.
 */
export function errors(...given: (number | Texts)[]) {
  const texts = given.map((one) => (typeof one === "number" ? { [one]: DESCRIPTIONS[one] } : one));
  return responses(Object.assign({}, ...texts));
}

function responses(texts: Texts) {
  return Object.fromEntries(
    Object.entries(texts).map(([status, description = ""]) => [status, { description }]),
  );
}

/** Describes a JSON response by an example. */
export function json(example: object, description = "OK") {
  return { description, content: { "application/json": { example } } };
}

/** Describes a JSON body by its schema and an example. */
export function jsonBody(input: Input<TProperties>, example: object, required = true) {
  const content = { "application/json": { schema: shown(input), example } };
  return { requestBody: { required, content } };
}

/** Describes the body of a form with these fields, and a file of that name. */
export function formBody(fields: Input<TProperties>, file: string) {
  const { properties, required = [], type } = shown(fields);
  const schema = {
    type,
    required: [...required, file],
    properties: { ...properties, [file]: { type: "string" as const, format: "binary" } },
  };
  return { requestBody: { required: true, content: { "multipart/form-data": { schema } } } };
}

/** Describes the fields as parameters of a query. */
export function queryParameters(query: Input<TProperties>) {
  const { properties, required = [] } = shown(query);
  return Object.entries(properties).map(([name, { description, ...schema }]) => ({
    name,
    in: "query" as const,
    required: required.includes(name),
    ...(description !== undefined && { description }),
    // Lists may also be repeated instead of separated by commas.
    ...(schema["type"] === "array" && { style: "form", explode: false }),
    ...(schema["type"] === "object" && { style: "deepObject", explode: true }),
    schema,
  }));
}

/** Returns the schema of an input for its callers, who need not send what has a default. */
function shown({ schema }: Input<TProperties>) {
  const { properties, additionalProperties } = schema;
  const required = schema.required?.filter((name) => properties[name]?.default === undefined) ?? [];
  return {
    type: "object" as const,
    properties,
    ...(required.length > 0 && { required }),
    ...(additionalProperties === false && { additionalProperties }),
  };
}

/** Serves the API documentation at /docs and its OpenAPI document at /docs/json. */
export function docs() {
  // The plugin keeps its document, too.
  let document: Promise<unknown> | undefined;
  return new Elysia({
    name: "docs",
    ...mount({ audience: "operator", tag: "Operation", errors: renderError }),
  })
    .onAfterHandle(({ path, response }) =>
      path === SPEC ? (document ??= completed(response)) : undefined,
    )
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

/** Completes the plugin's document. */
async function completed(document: unknown): Promise<unknown> {
  const { components, paths } = Value.Parse(Documents, document);
  // OpenAPI has no such keyword.
  for (const schema of Object.values(components.schemas)) delete schema.$id;
  for (const operation of Object.values(paths).flatMap((methods) => Object.values(methods))) {
    // The plugin lists parameters with a default as required.
    for (const parameter of operation.parameters ?? [])
      if (parameter.schema?.default !== undefined) parameter.required = false;
    operation.responses = await responsesOf(operation);
  }
  return document;
}

/** Returns the responses of a route with all its errors, as they are rendered. */
async function responsesOf(operation: Operation): Promise<Operation["responses"]> {
  const [policy] = operation["x-policy"];
  const all = Object.entries({ ...responses(refusalsOf(operation)), ...operation.responses });
  const given = all.filter(([, { description }]) => description !== NEVER);
  const described = given.map(async ([status, response]) => {
    if (Number(status) < 400 || "content" in response) return [status, response] as const;
    const answer = policy.errors(new AppError("invalid", response.description ?? ""));
    const type = answer.headers.get("content-type")?.split(";")[0] ?? "";
    const text = await answer.text();
    const example: unknown = type === "application/json" ? JSON.parse(text) : text;
    return [status, { ...response, content: { [type]: { example } } }] as const;
  });
  return Object.fromEntries(await Promise.all(described));
}

/** Returns the errors that follow from a route's policy and from its input. */
function refusalsOf({ "x-policy": [policy], ...operation }: Operation): Texts {
  const { parameters = [], requestBody, security } = operation;
  const hasBody = requestBody !== undefined;
  const hasInput = hasBody || parameters.some((one) => one.in === "query");
  const statuses = [
    ...(hasInput ? [400] : []),
    ...(hasBody ? [408, 413, 415] : []),
    ...(traitsOf(policy).isOpen ? [429] : []),
    ...(policy.audience === "operator" ? [] : [503]),
  ];
  const credentials = security.flatMap((one) => Object.keys(one));
  return Object.assign(
    Object.fromEntries(statuses.map((status) => [status, DESCRIPTIONS[status]])),
    ...credentials.map((one) => REFUSALS[one]),
    policy.keyRefusal === undefined ? {} : { 403: policy.keyRefusal },
  );
}

function asset(name: string) {
  return Bun.file(join(ASSETS, name));
}
