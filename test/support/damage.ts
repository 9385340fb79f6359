import { pino } from "pino";

import { type ObjectStore } from "../../src/platform/objects/objects.ts";

/** Damages an object's bytes; undefined deletes the object. */
export type Harm = (bytes: Buffer) => Uint8Array | undefined;

export const gone: Harm = () => undefined;

/** Flips one bit. */
export const flipped =
  (at: number): Harm =>
  (bytes) => {
    const index = at < 0 ? bytes.length + at : at;
    bytes[index] = (bytes[index] ?? 0) ^ 4;
    return bytes;
  };

export const cut =
  (length: number): Harm =>
  (bytes) =>
    bytes.subarray(0, length);

export async function harm(objects: ObjectStore, key: string, how: Harm): Promise<void> {
  for await (const object of objects.list(key)) {
    if (object.key !== key) continue;
    const bytes = Buffer.from(await objects.read(key, 0, object.bytes));
    await objects.remove(key);
    const changed = how(bytes);
    if (changed !== undefined) await objects.put(key, changed);
  }
}

/** Returns the keys of all segments in the order of their commits. */
export async function segmentKeys(objects: ObjectStore): Promise<string[]> {
  return (await Array.fromAsync(objects.list("segments/"))).map(({ key }) => key);
}

/** Makes a log that keeps its lines of that level and above. */
export function keptLog(level: "warn" | "error" = "error") {
  const lines: Record<string, unknown>[] = [];
  const write = (line: string) => void lines.push(JSON.parse(line));
  return { lines, log: pino({ level, base: null }, { write }) };
}
