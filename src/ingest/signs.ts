import { type Layout, decodeFields } from "./decoding.ts";
import { type LabelKind, Labels } from "./labels.ts";

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
  /** Fields of its body. The first one is the label's text; a field `value` is its value. */
  layout?: Layout;
};
/** Signs by type of message. */
export type SignTable = readonly (Sign | undefined)[];

const s = "text";
const u = "uint";
const ID: Layout = { id: s };
const METADATA: Sign = { label: "metadata", layout: { key: s, value: s } };
const LOCATION: Layout = { url: s, referrer: s, navigationStart: u };

export const WEB_SIGNS = tableOf([
  [4, { counts: "pageViews", label: "page", layout: LOCATION }],
  [28, { label: "user", layout: ID }],
  [29, { label: "anonymous", layout: ID }],
  [30, METADATA],
  [68, { counts: "clicks" }],
  [69, { counts: "clicks" }],
  [78, { counts: "errors" }],
  [122, { counts: "pageViews", label: "page", layout: { ...LOCATION, title: s } }],
]);

export const MOBILE_SIGNS = tableOf([
  [92, METADATA],
  [94, { label: "user", layout: ID }],
  [95, { label: "anonymous", layout: ID }],
  [97, { counts: "errors" }],
  [98, { counts: "pageViews", label: "page", layout: { screen: s, view: s, visible: "boolean" } }],
  [100, { counts: "clicks" }],
]);

export function noSigns(): Signs {
  return { clicks: 0, pageViews: 0, errors: 0, labels: undefined };
}

/** Adds what a message says. A label whose body is malformed is left out. */
export function addSign(
  signs: Signs,
  { counts, label, layout }: Sign,
  body: Uint8Array,
  at: number,
) {
  const fields = layout === undefined ? undefined : decodeFields(layout, body);
  // A screen that is hidden is not visited.
  if (fields?.["visible"] === false) return;
  if (counts !== undefined) signs[counts]++;
  if (label === undefined || fields === undefined) return;
  const [text] = Object.values(fields);
  signs.labels ??= new Labels();
  signs.labels.add(label, at, String(text), String(fields["value"] ?? ""));
}

function tableOf(signs: [type: number, sign: Sign][]): SignTable {
  const table: (Sign | undefined)[] = Array.from({ length: 128 });
  for (const [type, sign] of signs) table[type] = sign;
  return table;
}
