import { Cursor } from "./varint.ts";

/** Integers beyond 2^53 - 1 are decimal strings, so that JSON keeps them. */
export type Field = string | number | boolean;

/** One client message. `timestamp` is epoch milliseconds by the client's clock. */
export type Message = {
  /** Position in the session: the index in the batch's header plus one for the first message, and so on. */
  index: number | string;
  type: number;
  name: string;
  timestamp: number;
  /** Absent if the type is unknown or the body does not match its layouts. */
  fields?: Record<string, Field>;
  /** The undecoded body in base64, in place of `fields`. */
  body?: string;
  /** Set if the type is known, but the body does not match its layouts. */
  undecoded?: true;
};

type Encoding = "text" | "uint" | "int" | "boolean" | "int32";
/** Fields in wire order. */
export type Layout = Record<string, Encoding>;
/** Types of messages by number: name, and the layouts to try in turn. */
export type MessageTypes = ReadonlyMap<number, readonly [name: string, ...layouts: Layout[]]>;

export function decodeBody(
  types: MessageTypes,
  type: number,
  body: Uint8Array,
): Pick<Message, "name" | "fields" | "body" | "undecoded"> {
  const known = types.get(type);
  if (!known) return { name: "Unknown", body: body.toBase64() };
  const [name, ...layouts] = known;
  for (const layout of layouts) {
    const fields = decodeFields(layout, body);
    if (fields) return { name, fields };
  }
  return { name, body: body.toBase64(), undecoded: true };
}

/** Returns whether the layout matches the bytes from the cursor up to `end`, without decoding them. */
export function matches(layout: Layout, cursor: Cursor, end: number): boolean {
  for (const name in layout) {
    const encoding = layout[name];
    if (encoding === "boolean") cursor.offset += 1;
    else if (encoding === "int32") cursor.offset += 4;
    else {
      const value = cursor.uint();
      if (!Number.isFinite(value)) return false;
      if (encoding === "text") cursor.offset += value;
    }
  }
  return cursor.offset === end;
}

/** Returns undefined unless the layout matches the whole body. */
export function decodeFields(layout: Layout, body: Uint8Array): Record<string, Field> | undefined {
  const cursor = new Cursor(body);
  const fields: Record<string, Field> = {};
  for (const [name, encoding] of Object.entries(layout)) {
    const field = READERS[encoding](cursor);
    if (field === undefined) return undefined;
    fields[name] = field;
  }
  return cursor.offset === body.length ? fields : undefined;
}

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });

const READERS: Record<Encoding, (cursor: Cursor) => Field | undefined> = {
  uint(cursor) {
    const value = cursor.bigUint();
    return value === undefined ? undefined : plain(value);
  },
  int(cursor) {
    const value = cursor.bigUint();
    if (value === undefined) return undefined;
    return plain((value & 1n) === 0n ? value >> 1n : -(value >> 1n) - 1n);
  },
  boolean(cursor) {
    const byte = cursor.bytes[cursor.offset++];
    return byte === undefined ? undefined : byte === 1;
  },
  int32(cursor) {
    const end = cursor.offset + 4;
    if (end > cursor.bytes.length) return undefined;
    let value = 0;
    while (cursor.offset < end) value = (value << 8) | (cursor.bytes[cursor.offset++] ?? 0);
    return value;
  },
  text: (cursor) => readText(cursor),
};

/**
 * Reads a text, or only its first bytes: a part of a longer string would keep all of it in memory.
 * Returns undefined if the bytes end inside it.
 */
export function readText(cursor: Cursor, bytesMax = Number.POSITIVE_INFINITY): string | undefined {
  const length = cursor.uint();
  const start = cursor.offset;
  if (!(length <= cursor.bytes.length - start)) return undefined; // Catches a length of NaN, too.
  cursor.offset += length;
  return utf8.decode(cursor.bytes.subarray(start, start + Math.min(length, bytesMax)));
}

export function plain(value: bigint): number | string {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value.toString();
}
