import { Elysia } from "elysia";

import { type Clients } from "../platform/http/clients.ts";
import { mount } from "../platform/http/policy.ts";
import { errors, formBody, json, jsonBody, queryParameters } from "../platform/http/docs.ts";
import { AppError } from "../platform/errors.ts";
import { readJson } from "../platform/bodies/json.ts";
import { parseDecimal } from "../platform/whole-numbers.ts";
import { bareJson, renderPlainText } from "../wire/wemesse.ts";
import { type ApiKeys } from "../api-keys/service.ts";
import { type Build, describeBuild, mirrorUri, sourceUri } from "./build.ts";
import { OfferAnswers } from "./offer-answers.ts";
import { type Offers } from "./offers.ts";
import { Asking, BuildTexts, Change, changeOf, parseAsking } from "./schema.ts";
import { type Builds } from "./service.ts";

const CHANGE_BYTES_MAX = 2 ** 20;

const UPDATES = { tag: "Updates", errors: renderPlainText, exactPath: true };
// Checks ignore signatures, but some apps send one.
const CHECKS = { ...UPDATES, headers: ["signature", "x-device-id"] };

/**
 * Base URLs of links: of a mirror that apps are sent to, and of this server's `/source` if it has
 * another public URL.
 */
type Bases = { destUri: string | undefined; sourceUri: string | undefined };

export type CheckRoutesDeps = { offers: Offers; clients: Clients; bases: Bases };

export type PublishRoutesDeps = {
  builds: Builds;
  apiKeys: Pick<ApiKeys, "check">;
  clients: Clients;
  bases: Bases;
};

/** Builds the route by which apps check for updates. */
export function checkRoutes({ offers, clients, bases }: CheckRoutesDeps) {
  // Mirrors have one build per name, without versions.
  const answers = new OfferAnswers(bases.destUri === undefined ? sourceUri : mirrorUri);
  return new Elysia({ name: "update-checks", ...mount({ ...CHECKS, audience: "app" }) }).get(
    "/api/v1/updates/:version",
    ({ request, params }) => {
      const asking = parseAsking(request);
      // Null if the segment is not UTF-8.
      const version: unknown = params.version;
      if (typeof version !== "string") throw new AppError("not_found", "record not found");
      const { build, skipped } = offers.offer({ version, ...asking });
      return answers.of(build, skipped, bases.destUri ?? ownBase(request, clients, bases));
    },
    { detail: CHECK_DETAIL },
  );
}

/** Builds the routes by which builds are published and changed. */
export function publishRoutes({ builds, apiKeys, clients, bases }: PublishRoutesDeps) {
  const describe = (request: Request, build: Build) =>
    describeBuild(build, sourceUri(ownBase(request, clients, bases), build));
  return new Elysia({ name: "updates", ...mount({ ...UPDATES, audience: "publisher" }) })
    .get(
      "/api/v1/updates",
      async ({ request }) => {
        await apiKeys.check(request, "service");
        return bareJson((await builds.list()).map((build) => describe(request, build)));
      },
      { detail: LIST_DETAIL },
    )
    .post(
      "/api/v1/updates",
      async ({ request }) => {
        await apiKeys.check(request, "service");
        return bareJson(describe(request, await builds.publish(request)));
      },
      { parse: "none", detail: PUBLISH_DETAIL },
    )
    .patch(
      "/api/v1/updates/:version",
      async ({ request, params }) => {
        await apiKeys.check(request, "service");
        const change = changeOf(Change.read(await readJson(request, CHANGE_BYTES_MAX)));
        return bareJson(describe(request, await builds.change(parseId(params.version), change)));
      },
      { parse: "none", detail: CHANGE_DETAIL },
    );
}

/** Returns the base URL of downloads from this server. */
function ownBase(request: Request, clients: Clients, { sourceUri: configured }: Bases): string {
  return configured ?? `${clients.origin(request)}/source`;
}

function parseId(text: string): number {
  const id = parseDecimal(text, BigInt(Number.MAX_SAFE_INTEGER));
  if (id === undefined) throw new AppError("not_found", "no such build");
  return Number(id);
}

const EXAMPLE = {
  Id: 7,
  TargetABI: "arm64",
  Checksum: "9e107d9d372bb6826bd81d3542a419d6",
  Name: "app-2267_01.apk",
  Message: "Faster start",
  Size: "52.4 MB",
  Version: "2267_01",
  Skipped: true,
  Uploads: 0,
  URI: "https://example.com/source/arm64/2267_01/app-2267_01.apk",
  SHA256: "d7a8fbb307d7809469ca9abcb0082e4f8d5651e46d3cdb762d02d0bf37c9e592",
  Signature: "",
  Channel: "stable",
  Rollout: 100,
  Withdrawn: false,
  FloorPerABI: false,
};

const CHECK_DETAIL = {
  summary: "Check for the newest build, and whether the client must install it",
  parameters: [
    ...queryParameters(Asking),
    {
      name: "x-device-id",
      in: "header" as const,
      description: "instead of `device`",
      schema: Asking.schema.properties.device,
    },
  ],
  responses: { 200: json(EXAMPLE), ...errors({ 404: "record not found" }) },
};

const LIST_DETAIL = {
  summary: "List all builds; needs a `service` signature",
  responses: { 200: json([EXAMPLE]) },
};

const CHANGE_DETAIL = {
  summary: "Change who is offered a build, by its Id; needs a `service` signature",
  responses: { 200: json(EXAMPLE), ...errors({ 404: "no such build" }) },
  ...jsonBody(Change, { rollout: 20, withdrawn: false, channel: "stable" }),
};

const PUBLISH_DETAIL = {
  summary: "Publish a build; needs a `service` signature",
  description:
    "Publishing a version again replaces its build once the new bytes are stored. Text fields may also be in the query.",
  parameters: queryParameters(BuildTexts).map((one) => ({ ...one, required: false })),
  responses: { 200: json(EXAMPLE), ...errors({ 400: "http: no such file" }) },
  ...formBody(BuildTexts, "tmpFile"),
};
