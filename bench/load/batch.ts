/**
 * Builds batches like a mobile SDK: message 107, then type, time, length and body of each message.
 */

const TYPE = {
  event: 93,
  screenChanges: 96,
  viewComponent: 98,
  click: 100,
  input: 101,
  performance: 102,
  log: 103,
  networkCall: 105,
  swipe: 106,
  meta: 107,
} as const;

/** Length of the mark that makes each sent copy a different batch. */
export const MARK_BYTES = 16;
export const MARK_HOLDER = "0".repeat(MARK_BYTES);
// Log messages fill the rest. They can have every size above 200 bytes; smaller ones skip the size
// at which the length prefix grows by a byte.
const FILLER_BYTES_MIN = 200;
const FILLER_BYTES_MAX = 400;

/** Bytes with one mark or several, which may be overwritten with any ASCII. */
export type Batch = { bytes: Uint8Array; markOffsets: number[] };

/** Builds a batch of exactly `size` bytes. */
export function buildBatch(size: number, startedAtMs: number): Batch {
  const writer = new MessageWriter(startedAtMs);
  writer.message(TYPE.meta, [0]);
  writer.message(TYPE.log, ["info", `request ${MARK_HOLDER}`]);
  const markOffset = writer.length - MARK_BYTES;
  for (let index = 0; ; index++) {
    const fields = sample(index);
    const room = size - writer.length - encodedBytes(fields);
    if (room < FILLER_BYTES_MIN + FILLER_BYTES_MAX) break;
    writer.message(fields.type, fields.values);
  }
  while (size - writer.length > FILLER_BYTES_MAX + FILLER_BYTES_MIN)
    writer.filler(TYPE.log, FILLER_BYTES_MAX);
  writer.filler(TYPE.log, size - writer.length);
  if (writer.length !== size) throw new Error(`the batch has ${writer.length} bytes, not ${size}`);
  return { bytes: Uint8Array.from(writer.bytes), markOffsets: [markOffset] };
}

type Field = number | string | boolean;
type Sample = { type: number; values: Field[] };

/** Returns a message of a busy screen's mix: many counters and touches, some logs, a few calls. */
function sample(index: number): Sample {
  switch (index % 10) {
    case 0:
      return { type: TYPE.networkCall, values: networkCall(index) };
    case 1:
      return {
        type: TYPE.event,
        values: ["cart_updated", `{"items":${index},"total":"${index}.99"}`],
      };
    case 2:
      return {
        type: TYPE.log,
        values: ["info", `MainActor: rendered section ${index} of the product list`],
      };
    case 3:
      return { type: TYPE.screenChanges, values: [0, 0, 390, 844] };
    case 4:
      return { type: TYPE.click, values: [`Add to basket ${index}`, 120 + (index % 80), 640] };
    case 5:
      return { type: TYPE.viewComponent, values: ["ProductList", `ProductCell#${index}`, true] };
    case 6:
      return { type: TYPE.input, values: ["***", true, "Search products"] };
    case 7:
      return { type: TYPE.swipe, values: ["ProductList", 200, 500, "up"] };
    default:
      return {
        type: TYPE.performance,
        values: [index % 2 === 0 ? "mainThreadCPU" : "memoryUsage", index * 977],
      };
  }
}

function networkCall(index: number): Field[] {
  const response = JSON.stringify({
    id: index,
    name: `Product ${index}`,
    description: "A product, described at the length that descriptions of products usually have.",
    images: Array.from(
      { length: 3 },
      (_, image) => `https://cdn.example.com/${index}/${image}.jpg`,
    ),
    related: Array.from({ length: 120 }, (_, offset) => index * 31 + offset),
  });
  const request = '{"headers":{"accept":"application/json","accept-language":"en"}}';
  return [
    "fetch",
    "GET",
    `https://api.example.com/v2/products/${index}`,
    request,
    response,
    200,
    84,
  ];
}

function encodedBytes({ type, values }: Sample): number {
  const trial = new MessageWriter(2 ** 41);
  trial.message(type, values);
  return trial.length;
}

class MessageWriter {
  readonly bytes: number[] = [];
  #timeMs: number;

  constructor(startedAtMs: number) {
    this.#timeMs = startedAtMs;
  }

  get length(): number {
    return this.bytes.length;
  }

  message(type: number, values: Field[]): void {
    const body: number[] = [];
    for (const value of values) pushField(body, value);
    pushUint(this.bytes, type);
    pushUint(this.bytes, this.#timeMs);
    pushUint(this.bytes, body.length);
    for (const byte of body) this.bytes.push(byte);
    this.#timeMs += 37;
  }

  /** Writes one log message of exactly `size` bytes, including its envelope. */
  filler(type: number, size: number): void {
    const start = this.bytes.length;
    for (let content = size; content >= 0; content--) {
      this.message(type, ["debug", "x".repeat(content)]);
      if (this.bytes.length - start === size) return;
      this.bytes.length = start;
      this.#timeMs -= 37;
    }
    throw new Error(`no message of ${size} bytes`);
  }
}

function pushField(bytes: number[], value: Field): void {
  if (typeof value === "boolean") bytes.push(value ? 1 : 0);
  else if (typeof value === "number") pushUint(bytes, value);
  else {
    const text = new TextEncoder().encode(value);
    pushUint(bytes, text.length);
    for (const byte of text) bytes.push(byte);
  }
}

/** Writes LEB128, low seven bits first, without shifts, because times exceed 32 bits. */
function pushUint(bytes: number[], value: number): void {
  let rest = value;
  while (rest > 127) {
    bytes.push((rest % 128) + 128);
    rest = Math.floor(rest / 128);
  }
  bytes.push(rest);
}
