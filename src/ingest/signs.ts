import { readText } from "./decoding.ts";
import { type LabelKind, LABEL_BYTES_MAX, Labels } from "./labels.ts";
import { Cursor } from "./varint.ts";

/** Counts and labels of a batch. `labels` is undefined if there are none, as in most batches. */
export type Signs = {
  clicks: number;
  pageViews: number;
  errors: number;
  labels: Labels | undefined;
};

/** Count that a type of message raises, and label that it has. */
type Sign = {
  counts?: "clicks" | "pageViews" | "errors";
  label?: LabelKind;
  /** Number of texts at the start of the body: the label's, and its value or another one. */
  texts?: 1 | 2;
  /** Set if the last byte of the body, a boolean, says whether the message counts. */
  isOptional?: true;
};
/** Signs by type of message. */
export type SignTable = readonly (Sign | undefined)[];

const PAGE: Sign = { counts: "pageViews", label: "page" };

export const WEB_SIGNS = tableOf([
  [4, PAGE],
  [28, { label: "user" }],
  [29, { label: "anonymous" }],
  [30, { label: "metadata", texts: 2 }],
  [68, { counts: "clicks" }],
  [69, { counts: "clicks" }],
  [78, { counts: "errors" }],
  [122, PAGE],
]);

export const MOBILE_SIGNS = tableOf([
  [92, { label: "metadata", texts: 2 }],
  [94, { label: "user" }],
  [95, { label: "anonymous" }],
  [97, { counts: "errors" }],
  // A screen, its view, and whether it is visible now.
  [98, { ...PAGE, texts: 2, isOptional: true }],
  [100, { counts: "clicks" }],
]);

export function noSigns(): Signs {
  return { clicks: 0, pageViews: 0, errors: 0, labels: undefined };
}

/** Adds what a message says. A label whose body is malformed is left out. */
export function addSign(signs: Signs, sign: Sign, body: Uint8Array, at: number): void {
  const { counts, label, texts = 1, isOptional } = sign;
  if (isOptional && body.at(-1) !== 1) return;
  if (counts !== undefined) signs[counts]++;
  if (label === undefined) return;
  signs.labels ??= new Labels();
  if (signs.labels.isFull || (label === "page" && signs.labels.isSamePage(body))) return;
  const cursor = new Cursor(body);
  const text = readText(cursor, LABEL_BYTES_MAX);
  const value = texts === 2 ? readText(cursor, LABEL_BYTES_MAX) : "";
  if (text !== undefined && value !== undefined) signs.labels.add(label, at, text, value);
}

function tableOf(signs: [type: number, sign: Sign][]): SignTable {
  const table: (Sign | undefined)[] = Array.from({ length: 128 });
  for (const [type, sign] of signs) table[type] = sign;
  return table;
}
