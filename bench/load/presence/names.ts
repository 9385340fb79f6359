import type { PresencePlan } from "../plan.ts";

const SEQUENCE_DIGITS = 8;

/** Prefix of a ping's status, before its number, so that events can be matched with pings. */
export const STATUS_START = "p";
const STATUS_HOLDER = STATUS_START + "0".repeat(SEQUENCE_DIGITS);
/** Text before the number in every event. */
export const EVENT_MARK = `"status":"${STATUS_START}`;

/**
 * Makes the names of users and clients. Each run has its own, so that state that an earlier run
 * left in the database is not taken for an event of this one.
 */
export class Names {
  readonly #run = Math.random().toString(36).slice(2, 8).padEnd(6, "0");
  readonly #length: number;

  constructor(length: number) {
    this.#length = length;
  }

  user(index: number): string {
    return `${this.#run}-${index}-`.padEnd(this.#length, "u");
  }

  client(index: number): string {
    return `${index}-`.padEnd(this.#length, "c");
  }
}

/** Builds the requests of pings, with one buffer per user in which only the number changes. */
export class PingRequests {
  readonly #plan: PresencePlan;
  readonly #names: Names;
  readonly #host: string;
  readonly #made = new Map<number, { bytes: Uint8Array; offset: number }>();

  constructor(plan: PresencePlan, names: Names, host: string) {
    this.#plan = plan;
    this.#names = names;
    this.#host = host;
  }

  /** Returns the next request; valid until the next one for this user. */
  next(user: number, sequence: number): Uint8Array {
    let made = this.#made.get(user);
    if (made === undefined) this.#made.set(user, (made = this.#make(user)));
    writeDecimal(made.bytes, made.offset, sequence);
    return made.bytes;
  }

  #make(user: number) {
    const { bare } = this.#plan;
    const text = bare ? this.#publishRequest(user) : this.#pingRequest(user);
    const offset = text.indexOf(STATUS_HOLDER) + STATUS_START.length;
    return { bytes: new TextEncoder().encode(text), offset };
  }

  #pingRequest(user: number): string {
    const claim = { userid: this.#names.user(user), clientid: this.#names.client(0) };
    const body = JSON.stringify({ status: STATUS_HOLDER });
    return [
      "POST /ping HTTP/1.1",
      `Host: ${this.#host}`,
      `X-User-Claim: ${JSON.stringify(claim)}`,
      "Content-Type: application/json",
      `Content-Length: ${body.length}`,
      "",
      body,
    ].join("\r\n");
  }

  /** Builds a request with the event that Floodgate would make of the ping. */
  #publishRequest(user: number): string {
    const { transport } = this.#plan;
    const id = "1760000000000.000-1z141z4";
    const event = {
      time: 1_760_000_000,
      status: STATUS_HOLDER,
      online: true,
      userid: this.#names.user(user),
      clientid: this.#names.client(0),
    };
    const body =
      transport === "sse"
        ? `id: ${id}\ndata: ${JSON.stringify(event)}\n\n`
        : JSON.stringify({ type: "presence", ...event, id });
    return [
      `POST /publish/${transport}/${this.#names.user(user)} HTTP/1.1`,
      `Host: ${this.#host}`,
      `Content-Length: ${body.length}`,
      "",
      body,
    ].join("\r\n");
  }
}

/** Writes digits by arithmetic: strings would be the most expensive part of a ping. */
function writeDecimal(bytes: Uint8Array, offset: number, value: number): void {
  let rest = value;
  for (let at = offset + SEQUENCE_DIGITS - 1; at >= offset; at--) {
    const digit = rest % 10;
    bytes[at] = 48 + digit;
    rest = (rest - digit) / 10;
  }
}

/** Reads a number; returns NaN if there are no digits. */
export function readSequence(bytes: Uint8Array, offset: number): number {
  let value = 0;
  for (let at = offset; at < offset + SEQUENCE_DIGITS; at++) {
    const digit = (bytes[at] ?? 0) - 48;
    if (digit < 0 || digit > 9) return Number.NaN;
    value = value * 10 + digit;
  }
  return value;
}
