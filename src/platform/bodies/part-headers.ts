import { trimmed } from "./media-type.ts";

const HEADERS_MAX = 100;
const BLANK = /[ \t]/;
// Header name. A space before the colon is part of the name, as in Go.
const NAME = /^[!#$%&'*+\-.^\w`|~ ]+$/;
// oxlint-disable-next-line no-control-regex -- control characters are what it excludes
const VALUE = /^[^\u0000-\u0008\u000a-\u001f\u007f]*$/;

/** Headers of a part, parsed line by line like Go's `net/textproto`. */
export class PartHeaders {
  readonly #lines: string[] = [];

  /**
   * Adds a line without its line break; one that begins with a blank continues the previous header.
   * Returns false if it is not a header.
   */
  add(line: string): boolean {
    const isFolded = BLANK.test(line.charAt(0));
    const text = trimmed(line, BLANK);
    if (!isFolded) {
      this.#lines.push(text);
      return this.#lines.length <= HEADERS_MAX && text.includes(":");
    }
    const last = this.#lines.pop();
    if (last === undefined) return false;
    this.#lines.push(`${last} ${text}`);
    return true;
  }

  get areValid(): boolean {
    return this.#lines.every((line) => {
      const colon = line.indexOf(":");
      return NAME.test(line.slice(0, colon)) && VALUE.test(line.slice(colon + 1));
    });
  }

  /** Returns the first header of that name, which must be in lower case. */
  get(name: string): string | undefined {
    const isNamed = (line: string) =>
      line[name.length] === ":" && line.slice(0, name.length).toLowerCase() === name;
    const line = this.#lines.find(isNamed);
    return line === undefined ? undefined : trimmed(line.slice(name.length + 1), BLANK);
  }
}
