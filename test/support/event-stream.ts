import { type Socket } from "node:net";

import { Inbox } from "./inbox.ts";
import { PresenceEvent, checked } from "./presence.ts";
import { openSocket, parseHead, requestHead } from "./raw-http.ts";

export type SseEvent = { id: string | undefined; event: string; data: string };
export type Presence = PresenceEvent & { id: string };

/** Client for event streams that records comments and retry hints, and can stop reading. */
export class EventStream implements Disposable {
  status = 0;
  headers = new Headers();
  readonly comments: string[] = [];
  readonly retries: number[] = [];
  /** all events, including those that were taken */
  readonly events: SseEvent[] = [];
  readonly #inbox = new Inbox<SseEvent>("event");
  readonly #socket: Socket;
  readonly #head = Promise.withResolvers<void>();
  readonly #begun = Promise.withResolvers<void>();
  readonly #ended = Promise.withResolvers<"end of stream" | "cut">();
  readonly #text = new TextDecoder();
  #undecoded: Buffer = Buffer.alloc(0);
  #line = "";
  #fields = new Map<string, string>();
  #hasLastChunk = false;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => this.#receive(chunk));
    // A reset ends the connection, too.
    socket.on("error", () => undefined);
    socket.on("close", () => this.#close());
  }

  /** Resolves at the first byte of the stream, or at the headers if the answer is not a 200. */
  static async open(
    { url }: { url: string },
    path: string,
    headers: Record<string, string> = {},
  ): Promise<EventStream> {
    const socket = await openSocket(url);
    const stream = new EventStream(socket);
    const { host } = new URL(url);
    socket.write(requestHead(`GET ${path}`, { host, accept: "text/event-stream", ...headers }));
    await stream.#head.promise;
    if (stream.status === 200) await stream.#begun.promise;
    return stream;
  }

  /** Takes the next event of any name. */
  async event(): Promise<SseEvent> {
    return await this.#inbox.take();
  }

  /** Takes the next event, which must be an unnamed one with an id. */
  async presence(): Promise<Presence> {
    const { id, event, data } = await this.event();
    if (event !== "message") throw new Error(`an event named "${event}"`);
    if (id === undefined) throw new Error("an event without an id");
    return { ...checked(PresenceEvent, JSON.parse(data)), id };
  }

  /** Number of events that were not taken yet. */
  get waiting(): number {
    return this.#inbox.size;
  }

  /** Resolves with the way in which the answer ended: properly, or by a lost connection. */
  get ended(): Promise<"end of stream" | "cut"> {
    return this.#ended.promise;
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }

  #receive(chunk: Buffer): void {
    this.#undecoded = Buffer.concat([this.#undecoded, chunk]);
    if (this.status === 0) {
      const end = this.#undecoded.indexOf("\r\n\r\n");
      if (end === -1) return;
      const { status, headers } = parseHead(this.#undecoded.toString("latin1", 0, end));
      this.status = status;
      this.headers = headers;
      this.#head.resolve();
      this.#undecoded = this.#undecoded.subarray(end + 4);
    }
    this.#decode();
  }

  /** Decodes the chunks that are complete. */
  #decode(): void {
    for (;;) {
      const lineEnd = this.#undecoded.indexOf("\r\n");
      if (lineEnd === -1) return;
      const length = Number.parseInt(this.#undecoded.toString("latin1", 0, lineEnd), 16);
      const end = lineEnd + 2 + length;
      if (this.#undecoded.length < end + 2) return;
      const text = this.#text.decode(this.#undecoded.subarray(lineEnd + 2, end), { stream: true });
      this.#undecoded = this.#undecoded.subarray(end + 2);
      if (length === 0) {
        this.#hasLastChunk = true;
        this.#close();
        return;
      }
      this.#begun.resolve();
      this.#read(text);
    }
  }

  #read(text: string): void {
    const lines = (this.#line + text).split("\n");
    this.#line = lines.pop() ?? "";
    for (const line of lines) {
      if (line === "") this.#dispatch();
      else if (line.startsWith(":")) this.comments.push(line.slice(1).trim());
      else this.#readField(line);
    }
  }

  #readField(line: string): void {
    const colon = line.indexOf(":");
    const name = line.slice(0, colon);
    const value = line.slice(colon + 1).replace(/^ /, "");
    if (!["id", "event", "data", "retry"].includes(name)) throw new Error(`a line "${line}"`);
    if (name === "retry") this.retries.push(Number(value));
    else this.#fields.set(name, value);
  }

  #dispatch(): void {
    const fields = this.#fields;
    this.#fields = new Map();
    const data = fields.get("data");
    // A browser drops an event without data.
    if (data === undefined) return;
    const event = { id: fields.get("id"), event: fields.get("event") ?? "message", data };
    this.events.push(event);
    this.#inbox.put(event);
  }

  #close(): void {
    const how = this.#hasLastChunk ? "end of stream" : "cut";
    this.#head.resolve();
    this.#begun.resolve();
    this.#ended.resolve(how);
    this.#inbox.close(how);
  }
}
