import { AppError } from "../platform/errors.ts";
import { parseExact } from "../wire/exact-json.ts";
import { decodeJson, isRecord } from "../platform/json.ts";
import { textOf } from "../platform/text.ts";

const TEXT_BYTES_MAX = 255;

/**
 * A client's report of itself, with the fields in wire order. Numbers are signed 64-bit integers.
 */
export type Install = ReturnType<typeof readInstall>;

/**
 * Parses a report; its `ID` is whatever the client sent. Throws 400 with the text that clients
 * know.
 */
export function parseInstall(body: Uint8Array): Install {
  try {
    return readInstall(decodeJson(body, { parse: parseExact }));
  } catch (cause) {
    throw invalidInstall(cause);
  }
}

export function invalidInstall(cause: unknown): AppError {
  return new AppError("invalid", "CreateConfigHandler read invalid params", { cause });
}

function readInstall(value: unknown) {
  const fields = new LooseFields(value);
  return {
    ID: fields.integer("ID"),
    AppLocale: fields.text("AppLocale"),
    AppVersion: fields.text("AppVersion"),
    DeviceLocale: fields.text("DeviceLocale"),
    DeviceMac: fields.text("DeviceMac"),
    DeviceModel: fields.text("DeviceModel"),
    DeviceSDK: fields.text("DeviceSDK"),
    SessionActivity: fields.integer("SessionActivity"),
    SessionID: fields.integer("SessionID"),
    SessionRegister: fields.integer("SessionRegister"),
    TgVersion: fields.text("TgVersion"),
    TargetABI: fields.text("TargetABI"),
  };
}

/**
 * Reads fields whose names may be in any case; if there are several, the exact name wins. Absent
 * and null fields have zero values.
 */
class LooseFields {
  readonly #exact: Map<string, unknown>;
  readonly #folded: Map<string, unknown>;

  constructor(value: unknown) {
    if (!isRecord(value)) throw new TypeError("not an object");
    const entries = Object.entries(value);
    this.#exact = new Map(entries);
    this.#folded = new Map(entries.map(([name, one]) => [name.toLowerCase(), one]));
  }

  text(name: string): string {
    const text = textOf(this.#get(name) ?? "", name, 0, TEXT_BYTES_MAX);
    if (Buffer.byteLength(text) > TEXT_BYTES_MAX)
      throw new RangeError(`${name} is over ${TEXT_BYTES_MAX} bytes`);
    return text;
  }

  integer(name: string): bigint {
    const value = this.#get(name) ?? 0n;
    if (typeof value !== "bigint" || BigInt.asIntN(64, value) !== value)
      throw new RangeError(`${name} is not a 64-bit integer`);
    return value;
  }

  #get(name: string): unknown {
    return this.#exact.has(name) ? this.#exact.get(name) : this.#folded.get(name.toLowerCase());
  }
}
