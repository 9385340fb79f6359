import { AppError } from "../platform/errors.ts";
import { parseExact } from "../wire/exact-json.ts";
import { textOf } from "../platform/fields.ts";

const TEXT_BYTES_MAX = 255;

/** What a client reports of itself, and how it is listed: in the order of the wire. The numbers are signed, of 64 bits. */
export type User = ReturnType<typeof readUser>;

/** Throws 400 in the words that clients know for whatever is no user. Its `ID` is the client's own idea. */
export function parseUser(body: Uint8Array): User {
  try {
    return readUser(parseExact(new TextDecoder("utf-8", { fatal: true }).decode(body)));
  } catch (cause) {
    throw notAUser(cause);
  }
}

export function notAUser(cause: unknown): AppError {
  return new AppError("invalid", "CreateConfigHandler read invalid params", { cause });
}

function readUser(value: unknown) {
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

/** Fields whose names may be in any case; the exact one counts where there are several. Absent and null are zero values. */
class LooseFields {
  readonly #exact: Map<string, unknown>;
  readonly #folded: Map<string, unknown>;

  constructor(value: unknown) {
    if (typeof value !== "object" || value === null || Array.isArray(value))
      throw new TypeError("not an object");
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
      throw new RangeError(`${name} is no integer of 64 bits`);
    return value;
  }

  #get(name: string): unknown {
    return this.#exact.has(name) ? this.#exact.get(name) : this.#folded.get(name.toLowerCase());
  }
}
