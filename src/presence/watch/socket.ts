import { type ServerWebSocket } from "bun";

import { AppError } from "../../platform/errors.ts";
import { jsonOf } from "../../platform/json.ts";
import { type WebSocketOwner } from "../../platform/http/websocket.ts";
import { FrameLimiter } from "./frame-limiter.ts";
import { type Caller } from "../caller.ts";
import { type Bundle, packFrame, unpackFrame } from "./event.ts";
import { type Hub } from "./hub.ts";
import { type ClientFrame, USERS_MAX, parseFrame } from "../schema.ts";
import { type Seat } from "./seats.ts";
import { type Presence } from "../service.ts";
import { type DropReason, Subscriber } from "./subscriber.ts";

const SOCKET_USERS_MAX = 1000;
// Frames queued while an earlier one waits for the database.
const QUEUED_MAX = 20;
const QUEUED_BYTES_MAX = 256 * 1024;
const FRAME_BYTES_MAX = 64 * 1024;
// Close codes of RFC 6455 and its IANA registry; 3000 is "unauthorized".
const CLOSE = { frames: 1008, restart: 1012, slow: 1013, stalled: 1013, expired: 3000 };

type PingFrame = Exclude<ClientFrame, { type: "subscribe" | "unsubscribe" }>;
type ErrorCode =
  | "bad_frame"
  | "too_large"
  | "too_many_frames"
  | "too_many_users"
  | "no_identity"
  | "rate_limited"
  | "unavailable";

/** A subscriber over a WebSocket, which can also ping. Frames are JSON text or MessagePack. */
export class Socket extends Subscriber implements WebSocketOwner {
  readonly #presence: Presence;
  readonly #isMsgpack: boolean;
  #lastEventId: string | undefined;
  #ws: ServerWebSocket<WebSocketOwner> | undefined;
  #isBlocked = false;
  #limiter: FrameLimiter | undefined;
  #queued = 0;
  #queuedBytes = 0;
  /** Settles when the frames before the next one are handled; set while one waits for a store. */
  #working: Promise<void> | undefined;

  constructor(
    deps: { hub: Hub; presence: Presence },
    caller: Caller,
    options: { isMsgpack: boolean; lastEventId: string | undefined; seat: Seat },
  ) {
    super(deps.hub, caller, options.seat);
    this.#presence = deps.presence;
    this.#isMsgpack = options.isMsgpack;
    this.#lastEventId = options.lastEventId;
  }

  opened(ws: ServerWebSocket<WebSocketOwner>): void {
    this.#ws = ws;
    this.#presence.opened(this, "websocket");
  }

  closed(): void {
    this.#end(undefined);
  }

  drained(): void {
    this.#isBlocked = false;
    this.release();
  }

  received(message: string | Buffer): void {
    if (this.#ws === undefined) return;
    this.#limiter ??= new FrameLimiter(() => this.hub.elapsedMs());
    const bytes = typeof message === "string" ? Buffer.byteLength(message) : message.length;
    if (!this.#limiter.takeFrame()) this.#refuse("too_many_frames", "frames come too fast");
    else if (bytes > FRAME_BYTES_MAX) {
      this.#sendFrame(errorFrame("too_large", `a frame is over ${FRAME_BYTES_MAX} bytes`));
      this.drop("frames");
    } else this.#inOrder(bytes, () => this.#handle(message));
  }

  override reset(): void {
    this.#sendFrame({ type: "reset" });
  }

  // Bun pings quiet connections by itself.
  override keepAlive(): void {}

  override drop(reason: DropReason): void {
    this.#close(CLOSE[reason], reason, reason);
  }

  override disconnect(retryMs: number): void {
    this.#close(CLOSE.restart, `come back in ${retryMs} ms`);
  }

  override get isBlocked(): boolean {
    return this.#isBlocked;
  }

  protected override send(bundle: Bundle): void {
    const frames = this.#isMsgpack ? bundle.msgpack : bundle.json;
    const [first] = frames;
    if (frames.length === 1 && first !== undefined) this.#sendOne(first);
    // Corked, so that all frames go out in one write.
    else this.#ws?.cork(() => frames.forEach((frame) => this.#sendOne(frame)));
  }

  /** Queues a frame: Bun delivers frames while an earlier one still waits for a store. */
  #inOrder(bytes: number, handle: () => Promise<void> | undefined): void {
    if (this.#queued >= QUEUED_MAX || this.#queuedBytes + bytes > QUEUED_BYTES_MAX) {
      this.#refuse("too_many_frames", "frames come faster than they can be handled");
      return;
    }
    const before = this.#working;
    const work = () => {
      this.#queued--;
      this.#queuedBytes -= bytes;
      return this.#ws === undefined ? undefined : handle();
    };
    this.#queued++;
    this.#queuedBytes += bytes;
    const working = before === undefined ? work() : before.then(work);
    if (working === undefined) return;
    this.#working = working;
    void working.finally(() => {
      if (this.#working === working) this.#working = undefined;
    });
  }

  #handle(message: string | Buffer): Promise<void> | undefined {
    try {
      const frame = this.#decode(message);
      if (!("userids" in frame)) return this.#ping(frame);
      if (frame.type === "subscribe") return this.#subscribe(frame.userids);
      const before = this.topics.size;
      this.hub.unwatch(this, frame.userids);
      this.seat.unwatch(before - this.topics.size);
    } catch (error) {
      const isTold = error instanceof AppError;
      this.#refuse("bad_frame", isTold ? error.message : "the frame cannot be read");
    }
    return undefined;
  }

  #decode(message: string | Buffer): ClientFrame {
    const isText = typeof message === "string";
    if (isText === this.#isMsgpack)
      throw new AppError("invalid", this.#isMsgpack ? "frames are binary" : "frames are text");
    return parseFrame(isText ? jsonOf(message, "the frame is not JSON") : unpackFrame(message));
  }

  #ping(frame: PingFrame): Promise<void> | undefined {
    const { userid, clientid = "" } = this.caller;
    if (userid === undefined) this.#refuse("no_identity", "only a named user can ping");
    else {
      const user = { userid, clientid };
      const { type } = frame;
      const network = () => this.seat.network;
      const told =
        type === "bye"
          ? this.#presence.bye(user, network)
          : this.#presence.ping(user, frame.status, network);
      return told?.catch((error: unknown) => {
        const isLimited = error instanceof AppError && error.code === "rate_limited";
        if (isLimited) this.#refuse("rate_limited", error.message);
        else this.#refuse("unavailable", "the ping was not recorded: repeat it, or send a status");
      });
    }
    return undefined;
  }

  async #subscribe(userids: string[]): Promise<void> {
    const watched = new Set(Array.from(this.topics, ({ userid }) => userid));
    const added = userids.filter((userid) => !watched.has(userid));
    if (userids.length > USERS_MAX)
      this.#refuse("too_many_users", `at most ${USERS_MAX} users in a frame`);
    else if (this.topics.size + added.length > SOCKET_USERS_MAX)
      this.#refuse("too_many_users", `at most ${SOCKET_USERS_MAX} users on a connection`);
    else if (this.#mayWatch(added.length)) {
      const topics = await this.hub.prepare(userids);
      if (this.#ws === undefined) {
        this.hub.release(topics);
        return;
      }
      this.#presence.watch(this, topics, this.#lastEventId);
      // Only the first subscription can resume: users added later were not watched before.
      this.#lastEventId = undefined;
    }
  }

  #mayWatch(users: number): boolean {
    try {
      this.seat.watch(users);
      return true;
    } catch (error) {
      if (!(error instanceof AppError)) throw error;
      this.#refuse("too_many_users", error.message);
      return false;
    }
  }

  #refuse(code: ErrorCode, message: string): void {
    this.#sendFrame(errorFrame(code, message));
    if (this.#limiter?.takeError() === false) this.drop("frames");
  }

  #sendFrame(frame: object): void {
    this.#sendOne(this.#isMsgpack ? packFrame(frame) : JSON.stringify(frame));
  }

  #sendOne(frame: string | Uint8Array): void {
    if (this.#ws === undefined) return;
    // `send` returns -1 if the frame waits in this process, 0 if it was dropped.
    if (this.#ws.send(frame) <= 0) this.#isBlocked = true;
  }

  #close(code: number, text: string, reason?: DropReason): void {
    const ws = this.#ws;
    // Must come first, because Bun calls `closed` from within `close`.
    this.#end(reason);
    ws?.close(code, text);
  }

  #end(reason: DropReason | undefined): void {
    if (this.#ws === undefined) return;
    this.#ws = undefined;
    this.#presence.closed(this, "websocket", reason);
  }
}

function errorFrame(code: ErrorCode, message: string) {
  return { type: "error", code, message };
}
