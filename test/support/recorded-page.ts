import { type TestApp, type TestSession } from "./app.ts";
import { type ReadBatch, readBatches } from "./read-batches.ts";

/** A message of a page with the tab that sent it. */
export type Recorded = {
  kind: string;
  pageNo: number;
  tab: string;
  name: string;
  timestamp: number;
  fields: Record<string, unknown>;
};

type Built = { parent: Built | undefined; children: Built[]; roots: Built[] } & (
  | { tag: string; attributes: Map<string, string> }
  | { text: string }
);

/** Attributes that are compared; the site gives each of its elements some. */
const ATTRIBUTES = ["class", "id", "title"];

/**
 * Returns the messages of a session in the order in which they happened: by time, and at one time
 * those of assets last, because they name nodes that the others make.
 */
export async function recordedMessages(
  app: TestApp,
  session: Pick<TestSession, "sessionID">,
): Promise<Recorded[]> {
  const isLate = ({ kind }: Recorded) => Number(kind === "assets");
  return (await readBatches(app, session))
    .filter(({ header }) => header !== undefined)
    .toSorted((a, b) => headerTime(a) - headerTime(b))
    .flatMap(messagesOf)
    .toSorted((a, b) => a.timestamp - b.timestamp || isLate(a) - isLate(b));
}

/** Returns the fields of the messages of a type. */
export function fieldsOf(messages: Recorded[], name: string): Record<string, unknown>[] {
  return messages.filter((message) => message.name === name).map(({ fields }) => fields);
}

/** Rebuilds the last document of one tab, in the format of `treeOf` in site/page.js. */
export function documentOf(messages: Recorded[]): string {
  return shown(rebuilt(messages).get(0));
}

/** Returns the number that a tab's messages have for the element of an id. */
export function nodeOf(messages: Recorded[], id: string): number | undefined {
  for (const [number, node] of rebuilt(messages))
    if ("tag" in node && node.attributes.get("id") === id) return number;
  return undefined;
}

function rebuilt(messages: Recorded[]): Map<number, Built> {
  const start = messages.findLastIndex(({ name }) => name === "CreateDocument");
  const words = new Map(
    fieldsOf(messages, "StringDictGlobal").map(({ key, value }) => [key, String(value)]),
  );
  // Number 0 is the document, too.
  const nodes = new Map([[0, anElement("html")]]);
  for (const { name, fields } of messages.slice(start + 1)) apply(nodes, words, name, fields);
  return nodes;
}

function apply(
  nodes: Map<number, Built>,
  words: Map<unknown, string>,
  name: string,
  fields: Record<string, unknown>,
): void {
  const [id, parent, index] = [fields["id"], fields["parent"], fields["index"]].map(Number);
  const node = nodes.get(id ?? 0);
  const setAttribute = (key: unknown, value: unknown) => {
    if (node && "tag" in node) node.attributes.set(String(key), String(value));
  };
  switch (name) {
    case "CreateElementNode":
    case "CreateTextNode": {
      const made =
        name === "CreateTextNode" ? aText() : anElement(String(fields["tag"]).toLowerCase());
      nodes.set(id ?? 0, made);
      place(made, nodes.get(parent ?? 0), index ?? 0);
      break;
    }
    case "CreateIFrameDocument": {
      const [host, root] = [nodes.get(Number(fields["host"])), anElement("")];
      if (host) host.roots = [root];
      nodes.set(id ?? 0, root);
      break;
    }
    case "MoveNode":
      if (node) place(node, nodes.get(parent ?? 0), index ?? 0);
      break;
    case "RemoveNode":
      if (node) remove(node);
      break;
    case "SetNodeData":
    case "SetCSSDataURLBased":
      if (node && "text" in node) node.text = String(fields["data"]);
      break;
    case "SetNodeAttribute":
      setAttribute(fields["name"], fields["value"]);
      break;
    case "SetNodeAttributeDictGlobal":
      setAttribute(words.get(fields["nameKey"]), words.get(fields["valueKey"]));
      break;
    case "RemoveNodeAttribute":
      if (node && "tag" in node) node.attributes.delete(String(fields["name"]));
  }
}

function anElement(tag: string): Built {
  return { tag, attributes: new Map(), parent: undefined, children: [], roots: [] };
}

function aText(): Built {
  return { text: "", parent: undefined, children: [], roots: [] };
}

function place(node: Built, parent: Built | undefined, index: number): void {
  remove(node);
  node.parent = parent;
  parent?.children.splice(index, 0, node);
}

function remove(node: Built): void {
  const siblings = node.parent?.children ?? [];
  if (siblings.includes(node)) siblings.splice(siblings.indexOf(node), 1);
  node.parent = undefined;
}

function shown(node: Built | undefined): string {
  if (node === undefined) return "";
  if ("text" in node) return node.text;
  const { tag, attributes, roots, children } = node;
  const inner = [...roots.flatMap((root) => root.children), ...children].map(shown).join("");
  const listed = ATTRIBUTES.filter((name) => attributes.has(name));
  const written = listed.map((name) => ` ${name}="${attributes.get(name)}"`).join("");
  return `<${tag}${written}>${inner}</${tag}>`;
}

function headerTime({ header }: ReadBatch): number {
  return Number(header?.["timestamp"]);
}

function messagesOf({ kind, header, messages = [] }: ReadBatch): Recorded[] {
  const [pageNo, tab] = [Number(header?.["pageNo"]), tabOf(messages)];
  return messages.map(({ name, timestamp, fields }) => ({
    kind,
    pageNo,
    tab,
    name: String(name),
    timestamp: Number(timestamp),
    fields: isFields(fields) ? fields : {},
  }));
}

/** Returns the tab that a batch names in its second message. */
function tabOf(messages: Record<string, unknown>[]): string {
  const fields = messages.find(({ name }) => name === "TabData")?.["fields"];
  return isFields(fields) ? String(fields["tabId"]) : "";
}

function isFields(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
