import { Elysia } from "elysia";

import { type InflightBytes } from "../log/inflight-bytes.ts";
import { readContent } from "../platform/bodies/content.ts";
import { type Clients } from "../platform/http/clients.ts";
import { errors, json, jsonBody, queryParameters } from "../platform/http/docs.ts";
import { mount } from "../platform/http/policy.ts";
import { AppError } from "../platform/errors.ts";
import { stringifyExact } from "../wire/exact-json.ts";
import { discarded } from "../platform/gc.ts";
import { JSON_HEADERS, bareJson, renderPlainText } from "../wire/wemesse.ts";
import { type RowLimit } from "../platform/http/rate-limits.ts";
import { streamOf } from "../platform/streams.ts";
import { type ApiKeys } from "../api-keys/service.ts";
import {
  type Install,
  InstallBody,
  InstallsQuery,
  invalidInstall,
  parseInstall,
} from "./install-schema.ts";
import { type Installs } from "./installs.ts";

const BODY_BYTES_MAX = 64 * 1024;

const INSTALLS = { tag: "Updates", errors: renderPlainText, exactPath: true };

export type InstallListDeps = { installs: Installs; apiKeys: Pick<ApiKeys, "check"> };

export type InstallReportDeps = InstallListDeps & {
  clients: Clients;
  inflight: InflightBytes;
  /** Rate limit for new rows. */
  limit: RowLimit;
};

/** Builds the route with which apps report their installs. */
export function installReportRoutes({
  installs,
  apiKeys,
  clients,
  inflight,
  limit,
}: InstallReportDeps) {
  const policy = { ...INSTALLS, credential: "signature", headers: ["signature"] } as const;
  return new Elysia({ name: "user-reports", ...mount({ ...policy, audience: "app" }) }).post(
    "/api/v1/users",
    async ({ request }) => {
      await apiKeys.check(request, "client");
      const install = await readInstall(request, inflight);
      const id = await installs.report(install, () => limit.take(clients.network(request)));
      return bareJson({ ...install, ID: id });
    },
    { parse: "none", detail: REPORT_DETAIL },
  );
}

/** Builds the route that lists installs. */
export function installListRoutes({ installs, apiKeys }: InstallListDeps) {
  return new Elysia({ name: "users", ...mount({ ...INSTALLS, audience: "publisher" }) }).get(
    "/api/v1/users",
    async ({ request }) => {
      await apiKeys.check(request, "service");
      const { after, limit } = InstallsQuery.of(request);
      const pages = installs.list(after, limit);
      return new Response(streamOf(await begun(jsonArray(pages))), { headers: JSON_HEADERS });
    },
    { detail: LIST_DETAIL },
  );
}

/**
 * Reads the body. Throws the same 400 for one that is cut short as for one that is not an install.
 */
async function readInstall(request: Request, inflight: InflightBytes) {
  using held = inflight.holding(0);
  try {
    return parseInstall(await readContent(request, BODY_BYTES_MAX, held.reserve));
  } catch (error) {
    throw error instanceof AppError && error.code === "invalid" ? invalidInstall(error) : error;
  }
}

async function* jsonArray(pages: AsyncGenerator<Install[]>): AsyncGenerator<Uint8Array> {
  let before = "[";
  for await (const page of pages) {
    const chunk = Buffer.from(before + page.map((install) => stringifyExact(install)).join(","));
    yield chunk;
    before = ",";
    discarded(chunk.length);
  }
  yield Buffer.from(before === "[" ? "[]" : "]");
}

/** Resolves when there is a first chunk, so that an error before it still gets its status. */
async function begun<T>(chunks: AsyncGenerator<T>): Promise<AsyncGenerator<T>> {
  const first = await chunks.next();
  return (async function* () {
    if (first.done !== true) yield first.value;
    yield* chunks;
  })();
}

const REPORT_EXAMPLE = {
  AppLocale: "en",
  AppVersion: "2264_00",
  DeviceLocale: "en-us",
  DeviceMac: "02:00:00:44:55:66",
  DeviceModel: "Pixel 4",
  DeviceSDK: "SDK 30",
  SessionActivity: 1_632_000_000,
  SessionID: 1_234_567_890,
  SessionRegister: 1_631_000_000,
  TgVersion: "8.0.1",
  TargetABI: "arm64",
};

const INSTALL_EXAMPLE = { ID: 1, ...REPORT_EXAMPLE };

const REPORT_DETAIL = {
  summary: "Report an install; needs a `client` signature",
  responses: {
    200: json(INSTALL_EXAMPLE),
    ...errors({ 400: "CreateConfigHandler read invalid params" }),
  },
  ...jsonBody(InstallBody, REPORT_EXAMPLE),
};

const LIST_DETAIL = {
  summary: "List installs by ID; needs a `service` signature",
  parameters: queryParameters(InstallsQuery),
  responses: { 200: json([INSTALL_EXAMPLE]) },
};
