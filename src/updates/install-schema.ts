import { type SchemaOptions } from "@sinclair/typebox";
import { t } from "elysia";

import { AppError } from "../platform/errors.ts";
import { Query } from "../platform/http/parameters.ts";
import { Input } from "../platform/input.ts";
import { decodeJson, recordOf } from "../platform/json.ts";
import { NO_NUL, decimal, notWhole, optional, ruled } from "../platform/schema.ts";
import { isText } from "../platform/text.ts";
import { BIGINT_MAX, parseDecimal } from "../platform/whole-numbers.ts";
import { parseExact } from "../wire/exact-json.ts";

const TEXT_BYTES_MAX = 255;
const INT64: SchemaOptions = { type: "integer", format: "int64" };
const LIMIT_MAX = 10_000;

// Clients know only one text for anything that is wrong.
const WRONG = "is wrong";

const text = optional(
  ruled<string>({ type: "string", pattern: NO_NUL, "x-maxBytes": TEXT_BYTES_MAX }, (value) =>
    isText(value, 0, TEXT_BYTES_MAX) && Buffer.byteLength(value) <= TEXT_BYTES_MAX
      ? undefined
      : WRONG,
  ),
  (value) => value ?? "",
);

const integer = optional(
  ruled<bigint>(INT64, (value) =>
    typeof value === "bigint" && BigInt.asIntN(64, value) === value ? undefined : WRONG,
  ),
  (value) => value ?? 0n,
);

/** A client's report of itself, with the fields in wire order. Absent and null are zero values. */
export const InstallBody = new Input({
  ID: integer,
  AppLocale: text,
  AppVersion: text,
  DeviceLocale: text,
  DeviceMac: text,
  DeviceModel: text,
  DeviceSDK: text,
  SessionActivity: integer,
  SessionID: integer,
  SessionRegister: integer,
  TgVersion: text,
  TargetABI: text,
});

export type Install = ReturnType<typeof InstallBody.read>;

/** Query of a list of installs. */
export const InstallsQuery = new Query({
  after: t
    .Transform(
      ruled<string | number>(
        { ...INT64, minimum: 0, default: 0, description: "lists greater IDs only" },
        (value) =>
          parseDecimal(String(value)) === undefined ? notWhole(0, BIGINT_MAX) : undefined,
      ),
    )
    .Decode(BigInt)
    .Encode(String),
  limit: t.Optional(
    decimal(1, LIMIT_MAX, { description: "largest number of rows; all by default" }),
  ),
});

/**
 * Parses a report; its `ID` is whatever the client sent. Throws 400 with the text that clients
 * know.
 */
export function parseInstall(body: Uint8Array): Install {
  try {
    return InstallBody.read(exactlyNamed(decodeJson(body, { parse: parseExact })));
  } catch (cause) {
    throw invalidInstall(cause);
  }
}

export function invalidInstall(cause: unknown): AppError {
  return new AppError("invalid", "CreateConfigHandler read invalid params", { cause });
}

/** Finds the fields, whose names may be in any case; if there are several, the exact name wins. */
function exactlyNamed(value: unknown): Record<string, unknown> {
  const given = recordOf(value, "the body");
  const folded = new Map(Object.entries(given).map(([name, one]) => [name.toLowerCase(), one]));
  return Object.fromEntries(
    Object.keys(InstallBody.schema.properties).map((name) => [
      name,
      Object.hasOwn(given, name) ? given[name] : folded.get(name.toLowerCase()),
    ]),
  );
}
