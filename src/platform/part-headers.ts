const HEADERS_MAX = 100;
// A name with a space before its colon is another name, as Go takes it.
const NAME = /^[!#$%&'*+\-.^\w`|~ ]+$/;
// oxlint-disable-next-line no-control-regex -- control characters are what it excludes
const VALUE = /^[^\u0000-\u0008\u000a-\u001f\u007f]*$/;

/** The headers of a part, read line by line as Go's `net/textproto` does. */
export class PartHeaders {
  readonly #lines: string[] = [];

  /** Takes a line without its end; one that begins with a blank goes on with the line before. False for what is no header. */
  add(line: string): boolean {
    const isFolded = isBlank(line.charCodeAt(0));
    const text = trimBlanks(line);
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

  /** The first one of that name, which is given in small letters. */
  get(name: string): string | undefined {
    const isNamed = (line: string) =>
      line[name.length] === ":" && line.slice(0, name.length).toLowerCase() === name;
    const line = this.#lines.find(isNamed);
    return line === undefined ? undefined : trimBlanks(line.slice(name.length + 1));
  }
}

/** Without the spaces and tabs around it. */
function trimBlanks(text: string): string {
  let [start, end] = [0, text.length];
  while (start < end && isBlank(text.charCodeAt(start))) start++;
  while (start < end && isBlank(text.charCodeAt(end - 1))) end--;
  return text.slice(start, end);
}

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09;
}
