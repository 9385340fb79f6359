/**
 * Parsed header like Content-Type or Content-Disposition; the type and the parameter names are in
 * lower case.
 */
export type MediaType = { type: string; parameters: Map<string, string> };

const TOKEN = /[!#$%&'*+\-.^\w`{|}~]+/y;
const TYPE = /^[!#$%&'*+\-.^\w`{|}~]+(?:\/[!#$%&'*+\-.^\w`{|}~]+)?$/;
// Characters with Unicode's White_Space property.
const IS_SPACE = /[\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]/;
const SPACE = new RegExp(`${IS_SPACE.source}*`, "y");
// Characters that a backslash escapes. Before any other it is literal, as in the Windows paths that
// Internet Explorer sent as file names.
const ESCAPABLE = new Set('()<>@,;:\\"/[]?=');
const PERCENT = /%[0-9a-f]{2}/gi;

/**
 * Parses a header like Go's `mime.ParseMediaType`, which the servers that this one replaces use:
 * spaces nearly anywhere, a trailing semicolon, RFC 2231's `name*` and `name*0`. Returns undefined
 * if Go returns an error.
 */
export function parseMediaType(header: string): MediaType | undefined {
  const end = header.indexOf(";");
  const type = trimmed((end === -1 ? header : header.slice(0, end)).toLowerCase(), IS_SPACE);
  if (!TYPE.test(type)) return undefined;
  const plain = new Map<string, string>();
  const starred = new Map<string, Map<string, string>>();
  const reader = new ParameterReader(header, end === -1 ? header.length : end);
  for (;;) {
    const parameter = reader.next();
    if (parameter === "invalid") return undefined;
    if (parameter === "end") break;
    const [name, value] = parameter;
    const group = name.includes("*") ? groupOf(starred, name.slice(0, name.indexOf("*"))) : plain;
    if ((group.get(name) ?? value) !== value) return undefined;
    group.set(name, value);
  }
  for (const [name, pieces] of starred) {
    const value = joined(name, pieces);
    if (value !== undefined) plain.set(name, value);
  }
  return { type, parameters: plain };
}

/** Reads the parameters of a header one by one. */
class ParameterReader {
  readonly #text: string;
  #at: number;

  constructor(text: string, at: number) {
    this.#text = text;
    this.#at = at;
  }

  next(): [name: string, value: string] | "end" | "invalid" {
    this.#match(SPACE);
    if (this.#at === this.#text.length) return "end";
    if (!this.#skip(";")) return "invalid";
    this.#match(SPACE);
    if (this.#at === this.#text.length) return "end";
    const name = this.#match(TOKEN).toLowerCase();
    this.#match(SPACE);
    if (name === "" || !this.#skip("=")) return "invalid";
    this.#match(SPACE);
    const value = this.#text[this.#at] === '"' ? this.#quoted() : this.#match(TOKEN) || undefined;
    return value === undefined ? "invalid" : [name, value];
  }

  #quoted(): string | undefined {
    const text = this.#text;
    let value = "";
    let from = ++this.#at;
    for (; this.#at < text.length; this.#at++) {
      const character = text[this.#at] ?? "";
      if (character === '"') return value + text.slice(from, this.#at++);
      if (character === "\r" || character === "\n") return undefined;
      if (character !== "\\" || !ESCAPABLE.has(text[this.#at + 1] ?? "")) continue;
      value += text.slice(from, this.#at++);
      from = this.#at;
    }
    return undefined;
  }

  #skip(character: string): boolean {
    if (this.#text[this.#at] !== character) return false;
    this.#at++;
    return true;
  }

  #match(pattern: RegExp): string {
    pattern.lastIndex = this.#at;
    const [found = ""] = pattern.exec(this.#text) ?? [];
    this.#at += found.length;
    return found;
  }
}

function groupOf(groups: Map<string, Map<string, string>>, name: string): Map<string, string> {
  const group = groups.get(name) ?? new Map<string, string>();
  groups.set(name, group);
  return group;
}

/**
 * Returns the value of `name*`, or of `name*0` and its continuations; undefined if there is no
 * valid one.
 */
function joined(name: string, pieces: Map<string, string>): string | undefined {
  const single = pieces.get(`${name}*`);
  if (single !== undefined) return decoded(single);
  let value: string | undefined;
  for (let n = 0; ; n++) {
    const piece = pieces.get(`${name}*${n}`);
    const encoded = pieces.get(`${name}*${n}*`);
    if (piece === undefined && encoded === undefined) return value;
    value ??= "";
    if (piece !== undefined) value += piece;
    else value += (n === 0 ? decoded(encoded ?? "") : unescaped(encoded ?? "")) ?? "";
  }
}

/** Decodes RFC 2231's `charset'language'text`. */
function decoded(text: string): string | undefined {
  const [charset, , ...rest] = text.split("'");
  const isKnown = /^(?:utf-8|us-ascii)$/i.test(charset ?? "");
  return isKnown && rest.length > 0 ? unescaped(rest.join("'")) : undefined;
}

function unescaped(text: string): string | undefined {
  const escapes = text.match(PERCENT)?.length ?? 0;
  if (text.split("%").length - 1 !== escapes) return undefined;
  if (escapes === 0) return text;
  const bytes = Buffer.from(text, "utf8").toString("latin1");
  return Buffer.from(
    bytes.replace(PERCENT, (escape) => String.fromCharCode(Number.parseInt(escape.slice(1), 16))),
    "latin1",
  ).toString("utf8");
}

/** Removes matching characters from both ends, in linear time even for hostile text. */
export function trimmed(text: string, space: RegExp): string {
  let [start, end] = [0, text.length];
  while (start < end && space.test(text.charAt(start))) start++;
  while (start < end && space.test(text.charAt(end - 1))) end--;
  return text.slice(start, end);
}
