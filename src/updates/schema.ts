import { type StaticDecode, type TObject, type TSchema } from "@sinclair/typebox";
import { t } from "elysia";

import { AppError } from "../platform/errors.ts";
import { Query, queryOf } from "../platform/http/parameters.ts";
import { Input } from "../platform/input.ts";
import { NO_NUL, ruled } from "../platform/schema.ts";
import { isText } from "../platform/text.ts";
import { type Build } from "./build.ts";
import { VERSION } from "./version.ts";

export const NOTES_BYTES_MAX = 64 * 1024;
const DEVICE_LENGTH_MAX = 256;
export const DEFAULT_CHANNEL = "stable";

const must = (rule: string) => () => `must be ${rule}`;

const CHANGE = {
  appNotes: t.Optional(
    ruled<string>({ type: "string", pattern: NO_NUL, "x-maxBytes": NOTES_BYTES_MAX }, notesProblem),
  ),
  channel: t.Optional(
    t.String({
      pattern: "^[a-z0-9][a-z0-9-]{0,31}$",
      problem: must("up to 32 small letters, digits and hyphens"),
    }),
  ),
  rollout: t.Optional(
    t.Number({
      minimum: 0,
      maximum: 100,
      problem: must("a number from 0 to 100"),
      description: "percent of devices that are offered the build",
    }),
  ),
  withdrawn: t.Optional(t.Boolean({ problem: must("true or false") })),
  floorPerABI: t.Optional(
    t.Boolean({
      problem: must("true or false"),
      description: "forces clients of its own ABI only",
    }),
  ),
  signature: t.Optional(
    t.String({
      pattern: "^(?:[A-Za-z0-9+/]{86}==)?$",
      problem: must("the base64 of the 64 bytes of an Ed25519 signature"),
      description: "over the 32 bytes of the SHA-256",
    }),
  ),
};

/** Body of a PATCH. */
export const Change = new Input(CHANGE, { isClosed: true });

/** Texts of the form of a build, which may also be in the query. */
export const BuildTexts = new Query({
  appVersion: t.String({
    pattern: VERSION.source,
    problem: must("like 2267_01: a number, _ and two digits"),
    description: "`_00` at the end forces clients",
    example: "2267_01",
  }),
  targetABI: t.String({
    default: "",
    pattern: "^[\\w-]{0,32}$",
    problem: must("up to 32 letters, digits, _ and -"),
    example: "arm64",
  }),
  ...CHANGE,
});

const DEVICE = ruled<string>(
  { type: "string", maxLength: DEVICE_LENGTH_MAX, pattern: NO_NUL },
  (value) =>
    isText(value, 0, DEVICE_LENGTH_MAX)
      ? undefined
      : `must be text of 1 to ${DEVICE_LENGTH_MAX} characters`,
);

/** Query of a check for updates. */
export const Asking = new Query({
  channel: t.String({
    default: DEFAULT_CHANNEL,
    description: "the default also counts if the channel has no build for the client",
  }),
  device: t.Optional(DEVICE),
});

/** A publisher's change of a build; absent fields stay unchanged. */
export type BuildChange = Partial<
  Pick<Build, "notes" | "channel" | "rollout" | "withdrawn" | "floorPerAbi" | "signature">
>;

/** Names the fields as a build has them. */
export function changeOf({
  appNotes,
  floorPerABI,
  ...same
}: StaticDecode<TObject<typeof CHANGE>>): BuildChange {
  return {
    ...same,
    ...(appNotes !== undefined && { notes: appNotes }),
    ...(floorPerABI !== undefined && { floorPerAbi: floorPerABI }),
  };
}

/** Parses the texts of a form or a query. Ignores unknown names; empty texts count as absent. */
export function parseTexts(given: Record<string, unknown>) {
  const schemas = Object.entries<TSchema>(BuildTexts.schema.properties);
  const values = schemas.map(([name, schema]) => [name, jsonOf(given[name], schema)]);
  const { appVersion, targetABI, ...change } = BuildTexts.read(Object.fromEntries(values));
  return { version: appVersion, targetAbi: targetABI, change: changeOf(change) };
}

/**
 * Reads the channel and device of a check from the query or the header. Throws 400. Applies the rules
 * of `Asking` one by one, because reading them as an object would cost more than they do.
 */
export function parseAsking(request: Request) {
  const query = queryOf(request);
  const device = query?.get("device") ?? request.headers.get("x-device-id") ?? "";
  const wrong = DEVICE.problem(device);
  if (wrong !== undefined) throw new AppError("invalid", `device ${wrong}`);
  return {
    channel: query?.get("channel") ?? DEFAULT_CHANNEL,
    device: device === "" ? undefined : device,
  };
}

/** Converts a text to the value that it would have in JSON. */
function jsonOf(text: unknown, { type }: TSchema): unknown {
  if (text === "") return undefined;
  if (type === "number" && /^\d{1,3}(?:\.\d{1,9})?$/.test(String(text))) return Number(text);
  if (type === "boolean") return text === "true" || (text === "false" ? false : text);
  return text;
}

function notesProblem(value: unknown): string | undefined {
  if (typeof value !== "string") return "must be text";
  if (Buffer.byteLength(value) > NOTES_BYTES_MAX) return `must be at most ${NOTES_BYTES_MAX} bytes`;
  return isText(value, 0, NOTES_BYTES_MAX)
    ? undefined
    : `must be text of 0 to ${NOTES_BYTES_MAX} characters`;
}
