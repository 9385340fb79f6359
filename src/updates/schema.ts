import { Type } from "typebox";
import { Value } from "typebox/value";

import { AppError } from "../platform/errors.ts";
import { queryOf } from "../platform/http/parameters.ts";
import { isRecord } from "../platform/json.ts";
import { textOf } from "../platform/text.ts";
import { type Build } from "./build.ts";
import { VERSION } from "./version.ts";

export const NOTES_BYTES_MAX = 64 * 1024;
const ABI = /^[\w-]{0,32}$/;
const DEVICE_LENGTH_MAX = 256;
export const DEFAULT_CHANNEL = "stable";
const CHANNEL = "^[a-z0-9][a-z0-9-]{0,31}$";

/** A publisher's change of a build; absent fields stay unchanged. */
export type BuildChange = Partial<
  Pick<Build, "notes" | "channel" | "rollout" | "withdrawn" | "floorPerAbi" | "signature">
>;

/** Body of a PATCH. */
export const Change = Type.Object(
  {
    appNotes: Type.Optional(Type.String()),
    channel: Type.Optional(Type.String({ pattern: CHANNEL })),
    rollout: Type.Optional(Type.Number({ minimum: 0, maximum: 100 })),
    withdrawn: Type.Optional(Type.Boolean()),
    floorPerABI: Type.Optional(Type.Boolean()),
    signature: Type.Optional(Type.String({ pattern: "^(?:[A-Za-z0-9+/]{86}==)?$" })),
  },
  { additionalProperties: false },
);

const PROBLEMS: Record<string, string> = {
  appNotes: "appNotes must be text",
  channel: "channel must be up to 32 small letters, digits and hyphens",
  rollout: "rollout must be a number from 0 to 100",
  withdrawn: "withdrawn must be true or false",
  floorPerABI: "floorPerABI must be true or false",
  signature: "signature must be the base64 of the 64 bytes of an Ed25519 signature",
};

/** Parses the body of a PATCH. Throws 400 that names the field. */
export function parseChange(body: unknown): BuildChange {
  if (!Value.Check(Change, body)) throw new AppError("invalid", problemOf(body));
  const { appNotes, floorPerABI, ...same } = body;
  return {
    ...same,
    ...(appNotes !== undefined && { notes: notesOf(appNotes) }),
    ...(floorPerABI !== undefined && { floorPerAbi: floorPerABI }),
  };
}

/** Parses the texts of a form or a query. Ignores unknown names; empty texts count as absent. */
export function parseTextChange(values: Map<string, string>): BuildChange {
  const known = [...values].filter(
    ([name, value]) => Object.hasOwn(PROBLEMS, name) && value !== "",
  );
  return parseChange(Object.fromEntries(known.map(([name, value]) => [name, jsonOf(name, value)])));
}

/** Throws 400 unless it is a build number, an underscore and two digits. */
export function parseVersion(text: string | undefined): string {
  if (text === undefined || !VERSION.test(text))
    throw new AppError("invalid", "appVersion must be like 2267_01: a number, _ and two digits");
  return text;
}

export function parseAbi(text = ""): string {
  if (!ABI.test(text))
    throw new AppError("invalid", "targetABI must be up to 32 letters, digits, _ and -");
  return text;
}

/** Reads the channel and device of a check from the query or the header. Throws 400. */
export function parseAsking(request: Request) {
  const query = queryOf(request);
  const device = query.get("device") ?? request.headers.get("x-device-id");
  return {
    channel: query.get("channel") ?? DEFAULT_CHANNEL,
    device:
      device === null || device === "" ? undefined : textOf(device, "device", 1, DEVICE_LENGTH_MAX),
  };
}

function problemOf(body: unknown): string {
  if (!isRecord(body)) return "the body must be an object";
  const strange = Object.keys(body).find((name) => !Object.hasOwn(PROBLEMS, name));
  if (strange !== undefined) return `there is no field ${JSON.stringify(strange.slice(0, 64))}`;
  const [first] = Value.Errors(Change, body);
  return PROBLEMS[first?.instancePath.slice(1) ?? ""] ?? "the body is malformed";
}

function notesOf(text: string): string {
  if (Buffer.byteLength(text) > NOTES_BYTES_MAX)
    throw new AppError("invalid", `appNotes must be at most ${NOTES_BYTES_MAX} bytes`);
  return textOf(text, "appNotes", 0, NOTES_BYTES_MAX);
}

/** Converts a text to the value that it would have in JSON. */
function jsonOf(name: string, text: string): unknown {
  if (name === "rollout" && /^\d{1,3}(?:\.\d{1,9})?$/.test(text)) return Number(text);
  if (name === "withdrawn" || name === "floorPerABI")
    return text === "true" || (text === "false" ? false : text);
  return text;
}
