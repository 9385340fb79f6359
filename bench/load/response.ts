const RESPONSE_CHARACTERS_MAX = 4 * 2 ** 20;
const HEAD_END = "\r\n\r\n";

export type Answer = {
  status: number;
  retryAfter: boolean;
  /** True if the server closes the connection after this answer. */
  close: boolean;
  body: string;
};

/** Reads the answers of one connection, one at a time, because the bench never pipelines. */
export class ResponseReader {
  #text = "";

  /** Returns the answer once it is complete, decoded as Latin-1, which is enough for ASCII JSON. */
  push(chunk: Buffer): Answer | undefined {
    const text =
      this.#text === "" ? chunk.toString("latin1") : this.#text + chunk.toString("latin1");
    const parsed = parse(text);
    if (parsed === undefined) {
      if (text.length > RESPONSE_CHARACTERS_MAX) throw new Error("an answer grew too long");
      this.#text = text;
      return undefined;
    }
    this.#text = "";
    if (parsed.length !== text.length) throw new Error("bytes after the end of an answer");
    return parsed.answer;
  }

  reset(): void {
    this.#text = "";
  }
}

function parse(whole: string): { answer: Answer; length: number } | undefined {
  let start = 0;
  for (;;) {
    const text = start === 0 ? whole : whole.slice(start);
    const headEnd = text.indexOf(HEAD_END);
    if (headEnd < 0) return undefined;
    const status = Number(text.slice(9, 12));
    if (!text.startsWith("HTTP/1.") || !(status >= 100 && status <= 599))
      throw new Error(`not an HTTP answer: ${text.slice(0, 40)}`);
    const bodyStart = headEnd + HEAD_END.length;
    if (status < 200) {
      start += bodyStart; // An interim answer; the final one follows.
      continue;
    }
    const head = text.slice(0, bodyStart).toLowerCase();
    const body = readBody(head, text, bodyStart, status);
    if (body === undefined) return undefined;
    const answer = {
      status,
      retryAfter: head.includes("\r\nretry-after:"),
      close: head.includes("\r\nconnection: close"),
      body: body.text,
    };
    return { answer, length: start + body.end };
  }
}

function readBody(
  head: string,
  text: string,
  start: number,
  status: number,
): { text: string; end: number } | undefined {
  const at = head.indexOf("\r\ncontent-length:");
  if (at >= 0) {
    const end = start + Number.parseInt(head.slice(at + 17), 10);
    return text.length < end ? undefined : { text: text.slice(start, end), end };
  }
  if (head.includes("\r\ntransfer-encoding: chunked")) return readChunks(text, start);
  if (status === 204 || status === 304) return { text: "", end: start };
  throw new Error("an answer without a length");
}

function readChunks(text: string, start: number): { text: string; end: number } | undefined {
  let body = "";
  let at = start;
  for (;;) {
    const lineEnd = text.indexOf("\r\n", at);
    if (lineEnd < 0) return undefined;
    const size = Number.parseInt(text.slice(at, lineEnd), 16);
    if (!(size >= 0)) throw new Error("a chunk without a size");
    const chunkEnd = lineEnd + 2 + size;
    if (text.length < chunkEnd + 2) return undefined;
    body += text.slice(lineEnd + 2, chunkEnd);
    at = chunkEnd + 2;
    if (size === 0) return { text: body, end: at };
  }
}
