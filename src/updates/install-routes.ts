import { Elysia } from "elysia";

import { type InflightBytes } from "../log/inflight-bytes.ts";
import { readContent } from "../platform/bodies/content.ts";
import { type Clients } from "../platform/http/clients.ts";
import { jsonBody, queryParameter } from "../platform/http/docs.ts";
import { queryOf } from "../platform/http/parameters.ts";
import { mount } from "../platform/http/policy.ts";
import { AppError } from "../platform/errors.ts";
import { stringifyExact } from "../wire/exact-json.ts";
import { discarded } from "../platform/gc.ts";
import { JSON_HEADERS, bareJson, renderPlainText, signedDetail } from "../wire/wemesse.ts";
import { type RowLimit } from "../platform/http/rate-limits.ts";
import { streamOf } from "../platform/streams.ts";
import { type Signatures } from "../api-keys/service.ts";
import { type User, notAUser, parseUser } from "./install-schema.ts";
import { type Users } from "./installs.ts";

const BODY_BYTES_MAX = 64 * 1024;
const LIMIT_MAX = 10_000;
const ID_MAX = 2n ** 63n - 1n;

const USERS = { tag: "Updates", errors: renderPlainText, exactPath: true };

export type UserRoutesDeps = { users: Users; signatures: Pick<Signatures, "check"> };

export type ReportRoutesDeps = UserRoutesDeps & {
  clients: Clients;
  inflight: InflightBytes;
  /** Rate limit for new rows. */
  limit: RowLimit;
};

/** Builds the route by which apps report themselves. */
export function reportRoutes({ users, signatures, clients, inflight, limit }: ReportRoutesDeps) {
  const policy = { ...USERS, credential: "signature", headers: ["signature"] } as const;
  return new Elysia({ name: "user-reports", ...mount({ ...policy, audience: "app" }) }).post(
    "/api/v1/users",
    async ({ request }) => {
      await signatures.check(request, "client");
      const user = await inflight.holding(0, async (hold) =>
        parseUser(await readUserBody(request, hold)),
      );
      const id = await users.report(user, () => limit.take(clients.network(request)));
      return bareJson({ ...user, ID: id });
    },
    { parse: "none", detail: REPORT_DETAIL },
  );
}

/** Builds the route that lists users. */
export function userRoutes({ users, signatures }: UserRoutesDeps) {
  return new Elysia({ name: "users", ...mount({ ...USERS, audience: "publisher" }) }).get(
    "/api/v1/users",
    async ({ request }) => {
      await signatures.check(request, "service");
      const query = queryOf(request);
      const pages = users.list(
        whole(query, "after", 0n, ID_MAX) ?? 0n,
        Number(whole(query, "limit", 1n, BigInt(LIMIT_MAX)) ?? Number.POSITIVE_INFINITY),
      );
      return new Response(streamOf(await begun(jsonArray(pages))), { headers: JSON_HEADERS });
    },
    { detail: LIST_DETAIL },
  );
}

/** A body that is cut short counts as one that cannot be read. */
async function readUserBody(request: Request, hold: (bytes: number) => void): Promise<Uint8Array> {
  try {
    return await readContent(request, BODY_BYTES_MAX, hold);
  } catch (error) {
    throw error instanceof AppError && error.code === "invalid" ? notAUser(error) : error;
  }
}

function whole(query: URLSearchParams, name: string, min: bigint, max: bigint): bigint | undefined {
  const text = query.get(name);
  if (text === null) return undefined;
  const value = /^\d{1,19}$/.test(text) ? BigInt(text) : -1n;
  if (value < min || value > max)
    throw new AppError("invalid", `${name} must be a whole number from ${min} to ${max}`);
  return value;
}

async function* jsonArray(pages: AsyncGenerator<User[]>): AsyncGenerator<Uint8Array> {
  let before = "[";
  for await (const page of pages) {
    const chunk = Buffer.from(before + page.map((user) => stringifyExact(user)).join(","));
    yield chunk;
    before = ",";
    discarded(chunk.length);
  }
  yield Buffer.from(before === "[" ? "[]" : "]");
}

/** Resolves when there is a first chunk: what fails until then still gets its status. */
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

const USER_EXAMPLE = { ID: 1, ...REPORT_EXAMPLE };

const REPORT_DETAIL = {
  ...signedDetail("A client reports itself; needs a `client` signature", USER_EXAMPLE, {
    400: "CreateConfigHandler read invalid params",
    408: "the body took too long",
    413: `the body is over the limit of ${BODY_BYTES_MAX} bytes`,
  }),
  ...jsonBody(REPORT_EXAMPLE),
};

const LIST_DETAIL = {
  ...signedDetail("All users by ID; needs a `service` signature", [USER_EXAMPLE], {
    400: `limit must be a whole number from 1 to ${LIMIT_MAX}`,
  }),
  parameters: [
    queryParameter("after", "only those with a greater ID"),
    queryParameter("limit", `how many at most, 1 to ${LIMIT_MAX}; all`),
  ],
};
