import { type ServerWebSocket } from "bun";

import { AppError } from "../platform/errors.ts";
import { type WebSocketOwner } from "../platform/websocket.ts";
import { Budget } from "./budget.ts";
import { type Caller } from "./caller.ts";
import { type Bundle, packFrame, unpackFrame } from "./event.ts";
import { type Hub } from "./hub.ts";
import { type ClientFrame, USERS_MAX, parseFrame, parseJson } from "./schema.ts";
import { type Presence } from "./service.ts";
import { type DropReason, Subscriber } from "./subscriber.ts";

const SOCKET_USERS_MAX = 1000;
const FRAME_BYTES_MAX = 64 * 1024;
// RFC 6455 and its registry; 3000 is "unauthorized".
const CLOSE = { frames: 1008, restart: 1012, slow: 1013, stalled: 1013, expired: 3000 };

type ErrorCode = "bad_frame" | "too_large" | "too_many_frames" | "too_many_users" | "no_identity";

/** A subscriber by WebSocket, which pings as well. Frames are JSON texts, or MessagePack. */
export class Socket extends Subscriber implements WebSocketOwner {
  readonly #presence: Presence;
  readonly #isMsgpack: boolean;
  #lastEventId: string | undefined;
  #ws: ServerWebSocket<WebSocketOwner> | undefined;
  #isBlocked = false;
  #budget: Budget | undefined;

  constructor(
    deps: { hub: Hub; presence: Presence },
    caller: Caller,
    options: { isMsgpack: boolean; lastEventId: string | undefined },
  ) {
    super(deps.hub, caller);
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

  async received(message: string | Buffer): Promise<void> {
    if (this.#ws === undefined) return;
    const nowMs = this.hub.elapsedMs();
    this.#budget ??= new Budget(nowMs);
    if (!this.#budget.takeFrame(nowMs)) {
      this.#refuse("too_many_frames", "frames come too fast");
      return;
    }
    const bytes = typeof message === "string" ? Buffer.byteLength(message) : message.length;
    if (bytes > FRAME_BYTES_MAX) {
      this.#sendFrame(errorFrame("too_large", `a frame is over ${FRAME_BYTES_MAX} bytes`));
      this.drop("frames");
      return;
    }
    try {
      await this.#obey(this.#decode(message));
    } catch (error) {
      const isOurs = !(error instanceof AppError);
      this.#refuse("bad_frame", isOurs ? "the frame could not be read" : error.message);
    }
  }

  override reset(): void {
    this.#sendFrame({ type: "reset" });
  }

  // Bun pings quiet connections by itself.
  override keepAlive(): void {}

  override drop(reason: DropReason): void {
    this.#ws?.close(CLOSE[reason], reason);
    this.#end(reason);
  }

  override sendAway(retryMs: number): void {
    this.#ws?.close(CLOSE.restart, `come back in ${retryMs} ms`);
    this.#end(undefined);
  }

  protected override get isBlocked(): boolean {
    return this.#isBlocked;
  }

  protected override send(bundle: Bundle): void {
    const frames = this.#isMsgpack ? bundle.msgpack : bundle.json;
    const [first] = frames;
    if (frames.length === 1 && first !== undefined) this.#sendOne(first);
    // In one write.
    else this.#ws?.cork(() => frames.forEach((frame) => this.#sendOne(frame)));
  }

  #decode(message: string | Buffer): ClientFrame {
    const isText = typeof message === "string";
    if (isText === this.#isMsgpack)
      throw new AppError("invalid", this.#isMsgpack ? "frames are binary" : "frames are text");
    return parseFrame(isText ? parseJson(message, "the frame") : unpackFrame(message));
  }

  async #obey(frame: ClientFrame): Promise<void> {
    switch (frame.type) {
      case "ping":
      case "bye": {
        const { userid, clientid = "" } = this.caller;
        if (userid === undefined) this.#refuse("no_identity", "only a named user can ping");
        else if (frame.type === "bye") this.#presence.bye({ userid, clientid });
        else await this.#presence.ping({ userid, clientid }, frame.status);
        return;
      }
      case "subscribe":
        this.#subscribe(frame.userids);
        return;
      case "unsubscribe":
        this.hub.unwatch(this, frame.userids);
    }
  }

  #subscribe(userids: string[]): void {
    const added = userids.filter((userid) => this.hub.find(userid)?.subscribers.has(this) !== true);
    if (userids.length > USERS_MAX)
      this.#refuse("too_many_users", `at most ${USERS_MAX} users in a frame`);
    else if (this.topics.size + added.length > SOCKET_USERS_MAX)
      this.#refuse("too_many_users", `at most ${SOCKET_USERS_MAX} users on a connection`);
    else {
      this.#presence.watch(this, userids, this.#lastEventId);
      // Users that are added later were not watched before.
      this.#lastEventId = undefined;
    }
  }

  #refuse(code: ErrorCode, message: string): void {
    this.#sendFrame(errorFrame(code, message));
    if (this.#budget?.takeError(this.hub.elapsedMs()) === false) this.drop("frames");
  }

  #sendFrame(frame: object): void {
    this.#sendOne(this.#isMsgpack ? packFrame(frame) : JSON.stringify(frame));
  }

  #sendOne(frame: string | Uint8Array): void {
    if (this.#ws === undefined) return;
    // -1: it waits in this process, 0: it was not even taken.
    if (this.#ws.send(frame) <= 0) this.#isBlocked = true;
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
