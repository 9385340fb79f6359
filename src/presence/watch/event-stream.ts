import { type Caller } from "../caller.ts";
import { type Bundle } from "./event.ts";
import { type Hub } from "./hub.ts";
import { type Presence } from "../service.ts";
import { type Seat } from "./seats.ts";
import { type DropReason, Subscriber } from "./subscriber.ts";
import { type Topic } from "./topic.ts";

// Chunks that may be queued, because one turn of the event loop can add several before the
// connection takes any.
const CHUNKS_AHEAD_MAX = 8;

const text = new TextEncoder();
const COMMENT = text.encode(":\n\n");

/** Prepared topics that the stream begins with, and its place in `Seats`. */
type Begin = { topics: Topic[]; lastEventId: string | undefined; seat: Seat };

/**
 * A subscriber over server-sent events, as the source of a response's body. The server's idle
 * timeout ends clients that never read.
 */
export class EventStream extends Subscriber {
  readonly #presence: Presence;
  #begin: Begin | undefined;
  #controller: ReadableStreamDefaultController<Uint8Array> | undefined;

  constructor(deps: { hub: Hub; presence: Presence }, caller: Caller, begin: Begin) {
    super(deps.hub, caller, begin.seat);
    this.#presence = deps.presence;
    this.#begin = begin;
  }

  start(controller: ReadableStreamDefaultController<Uint8Array>): void {
    this.#controller = controller;
    // Tells the client and every proxy between at once that the stream is open.
    controller.enqueue(COMMENT);
    this.#presence.opened(this, "sse");
    if (this.#begin !== undefined)
      this.#presence.watch(this, this.#begin.topics, this.#begin.lastEventId);
    this.#begin = undefined;
  }

  pull(): void {
    this.release();
  }

  cancel(): void {
    this.#end(undefined);
  }

  override reset(id: string): void {
    this.#write(text.encode(`event: reset\nid: ${id}\ndata: {}\n\n`));
  }

  override keepAlive(): void {
    if (!this.isBlocked) this.#write(COMMENT);
  }

  override drop(reason: DropReason): void {
    this.#close(reason);
  }

  override disconnect(retryMs: number): void {
    this.#write(text.encode(`retry: ${retryMs}\n\n`));
    this.#close(undefined);
  }

  override get isBlocked(): boolean {
    return (this.#controller?.desiredSize ?? 0) < -CHUNKS_AHEAD_MAX;
  }

  protected override send(bundle: Bundle): void {
    this.#write(bundle.sse);
  }

  #write(chunk: Uint8Array): void {
    this.#controller?.enqueue(chunk);
  }

  #close(reason: DropReason | undefined): void {
    this.#controller?.close();
    this.#end(reason);
  }

  #end(reason: DropReason | undefined): void {
    if (this.#controller === undefined) return;
    this.#controller = undefined;
    this.#presence.closed(this, "sse", reason);
  }
}
