/** A field of a message body; numbers are written as unsigned LEB128. */
export type WireField = string | number | bigint | boolean;

export type BatchShape = {
  messages?: number;
  /** Size of the whole batch, met within three bytes per message, unless the salt needs more. */
  bytes?: number;
  /** Batches of different salts differ in every message. */
  salt?: string;
  /** Epoch ms of BatchMeta; message n is n milliseconds later. */
  timestamp?: number;
};

const LOG_LINE = "GET /v1/feed answered 200 after 41 ms, cache miss, retry 0; ";
/** Bytes of type, timestamp, length, severity and the length of the content. */
const LOG_OVERHEAD_BYTES = 16;
const META_BYTES = 9;

/** Encodes a valid mobile batch, by default of a typical size: 160 Log messages in 16 KiB. */
export function aBatch(shape: BatchShape = {}): Uint8Array {
  const { messages = 160, bytes = 16 * 1024, salt = "", timestamp = 1_760_000_000_000 } = shape;
  const contentBytes =
    Math.floor((bytes - META_BYTES) / Math.max(messages, 1)) - LOG_OVERHEAD_BYTES;
  const filler = LOG_LINE.repeat(Math.ceil(Math.max(contentBytes, 0) / LOG_LINE.length));
  const log = (_: unknown, index: number) => {
    const head = `${salt}#${index} `;
    const content = head + filler.slice(0, Math.max(contentBytes - head.length, 0));
    return encodeMessage(103, timestamp + index + 1, "info", content);
  };
  return encodeBatch(Array.from({ length: messages }, log), { timestamp });
}

/** Encodes a mobile batch: BatchMeta, then the messages unchanged. */
export function encodeBatch(
  messages: Uint8Array[],
  {
    firstIndex = 0n,
    timestamp = 1_760_000_000_000,
  }: { firstIndex?: number | bigint; timestamp?: number } = {},
): Uint8Array {
  return concat([encodeMessage(107, timestamp, firstIndex), ...messages]);
}

export function encodeMessage(type: number, timestamp: number, ...fields: WireField[]): Uint8Array {
  return encodeFrame(type, timestamp, concat(fields.map(encodeField)));
}

/** Encodes a message whose body need not match its type. */
export function encodeFrame(type: number, timestamp: number, body: Uint8Array): Uint8Array {
  return concat([uint(type), uint(timestamp), uint(body.length), body]);
}

export function encodeField(field: WireField): Uint8Array {
  if (typeof field === "boolean") return Uint8Array.of(field ? 1 : 0);
  if (typeof field !== "string") return uint(field);
  const text = Buffer.from(field);
  return concat([uint(text.length), text]);
}

export function uint(value: number | bigint): Uint8Array {
  const bytes: number[] = [];
  let rest = BigInt(value);
  for (; rest > 0x7fn; rest >>= 7n) bytes.push(Number(rest & 0x7fn) | 0x80);
  return Uint8Array.from([...bytes, Number(rest)]);
}

export function concat(parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(Bun.concatArrayBuffers(parts, Number.POSITIVE_INFINITY, false));
}
