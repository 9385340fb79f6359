import { type WireField, concat, encodeField, uint } from "./batches.ts";

export type WebHeader = {
  version?: number;
  pageNo?: number;
  firstIndex?: number;
  /** Epoch ms. */
  timestamp?: number;
  location?: string;
};

/** Encodes a batch of the web tracker: its header, then the messages unchanged. */
export function encodeWebBatch(messages: Uint8Array[], header: WebHeader = {}): Uint8Array {
  const { version = 2, pageNo = 0, firstIndex = 0 } = header;
  const { timestamp = 1_760_000_000_000, location = "https://a.b/c" } = header;
  const fields = [version, pageNo, firstIndex, zigzag(timestamp), location];
  return concat([uint(81), ...fields.map(encodeField), ...messages]);
}

export function encodeWebMessage(type: number, ...fields: WireField[]): Uint8Array {
  return encodeWebFrame(type, concat(fields.map(encodeField)));
}

/** Encodes a message whose body need not match its type. */
export function encodeWebFrame(type: number, body: Uint8Array): Uint8Array {
  const size = Buffer.alloc(3);
  size.writeUIntLE(body.length, 0, 3);
  return concat([uint(type), size, body]);
}

/** Returns the number as which a signed one is encoded. */
export function zigzag(value: number): bigint {
  return value < 0 ? BigInt(value) * -2n - 1n : BigInt(value) * 2n;
}
