import { type SchemaOptions, type StaticDecode } from "@sinclair/typebox";
import { t } from "elysia";

import { Query } from "../platform/http/parameters.ts";
import { NO_NUL, decimal, ruled, text } from "../platform/schema.ts";
import { isText } from "../platform/text.ts";

// JavaScript formats years outside these bounds in a way that PostgreSQL cannot parse.
const TIME_MIN_MS = Date.parse("0001-01-01");
const TIME_MAX_MS = Date.UTC(10_000, 0);
const INTEGER_MAX = 2 ** 31 - 1;
const METADATA_MAX = 16;

const TIME = text(1, 64);
const TIMES = [t.String({ format: "date-time" }), t.String({ pattern: "^\\d{1,14}$" })];

/** Describes and reads a time in ISO 8601 or in epoch milliseconds. */
function time(shown: SchemaOptions) {
  const schema = ruled<string>({ anyOf: TIMES, ...shown }, (value) =>
    Number.isNaN(msOf(String(value)))
      ? (TIME.problem(value) ?? "is neither an ISO 8601 time nor epoch milliseconds")
      : undefined,
  );
  return t
    .Transform(schema)
    .Decode((value) => new Date(msOf(value)))
    .Encode(String);
}

function msOf(given: string): number {
  const isIso = /^\d{4}-\d\d-\d\d/.test(given);
  const ms = /^\d+$/.test(given) ? Number(given) : isIso ? Date.parse(given) : Number.NaN;
  return ms >= TIME_MIN_MS && ms < TIME_MAX_MS ? ms : Number.NaN;
}

function flag(shown: SchemaOptions) {
  const schema = ruled<"true" | "false">({ type: "boolean", ...shown }, (value) =>
    value === "true" || value === "false" ? undefined : "must be true or false",
  );
  return t
    .Transform(schema)
    .Decode((value) => value === "true")
    .Encode((value) => (value ? "true" : "false"));
}

const METADATA = ruled<Record<string, string>>(
  {
    type: "object",
    additionalProperties: { type: "string", maxLength: 1000, pattern: NO_NUL },
    description: "`metadata[plan]=pro`; all of several must be right",
    maxProperties: METADATA_MAX,
  },
  (value) => {
    const entries = Object.entries(value ?? {});
    const isRight =
      entries.length <= METADATA_MAX &&
      entries.every(([key, one]) => isText(key, 1, 255) && isText(one, 0, 1000));
    return isRight ? undefined : `must be at most ${METADATA_MAX} keys and texts`;
  },
);

/** Query of the list of sessions. */
export const SessionQuery = new Query(
  {
    projectId: decimal(0, INTEGER_MAX, {
      description: "the internal id, as `project list` prints it",
    }),
    from: t.Optional(time({ description: "earliest start, ISO 8601 or epoch milliseconds" })),
    to: t.Optional(time({ description: "starts before this time" })),
    userUUID: t.Optional(t.String({ format: "uuid", problem: () => "must be a UUID" })),
    userID: t.Optional(
      text(1, 255, { description: "user id of the start, or that a message has set" }),
    ),
    anonymousID: t.Optional(text(1, 255)),
    metadata: t.Optional(METADATA),
    page: t.Optional(
      text(1, 1000, { description: "begin of the URL of a page, or of the name of a screen" }),
    ),
    hasErrors: t.Optional(flag({ description: "whether an exception or a crash was recorded" })),
    platform: t.Optional(text(1, 64, { examples: ["ios", "android", "web"] })),
    country: t.Optional(text(1, 64, { description: "`userCountry` as it is listed" })),
    os: t.Optional(text(1, 255, { description: "`userOS` as it is listed" })),
    browser: t.Optional(text(1, 255, { description: "`userBrowser` as it is listed" })),
    device: t.Optional(
      text(1, 255, { description: "`userDevice` as it is listed", examples: ["iPhone 14 Pro"] }),
    ),
    minDurationMs: t.Optional(decimal(0, INTEGER_MAX)),
    maxDurationMs: t.Optional(decimal(0, INTEGER_MAX)),
    limit: decimal(1, 1000, { default: 100 }),
    cursor: t.Optional(text(1, 64, { description: "`nextCursor` of the previous page" })),
  },
  { isClosed: true },
);

export type SessionFilter = StaticDecode<typeof SessionQuery.schema>;
