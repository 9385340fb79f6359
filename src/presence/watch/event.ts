import { Packr } from "msgpackr";

/** Event for subscribers to a user; `time` is epoch seconds. */
export type PresenceEvent = {
  userid: string;
  time: number;
  status: string;
  online: boolean;
  /** device that changed */
  clientid: string;
  id: string;
};

// Disables records, an extension of msgpackr that other decoders do not know.
const packr = new Packr({ useRecords: false });
const text = new TextEncoder();

/** Events in order, encoded once for all subscribers that get them. */
export class Bundle {
  readonly events: readonly PresenceEvent[];
  #sse: Uint8Array | undefined;
  #json: string[] | undefined;
  #msgpack: Uint8Array[] | undefined;

  constructor(events: readonly PresenceEvent[]) {
    this.events = events;
  }

  get sse(): Uint8Array {
    this.#sse ??= text.encode(this.events.map(sseEvent).join(""));
    return this.#sse;
  }

  get json(): string[] {
    this.#json ??= this.events.map((event) => JSON.stringify({ type: "presence", ...event }));
    return this.#json;
  }

  get msgpack(): Uint8Array[] {
    this.#msgpack ??= this.events.map((event) => packFrame({ type: "presence", ...event }));
    return this.#msgpack;
  }
}

export function packFrame(frame: object): Uint8Array {
  return packr.pack(frame);
}

export function unpackFrame(bytes: Uint8Array): unknown {
  return packr.unpack(bytes);
}

function sseEvent({ id, ...data }: PresenceEvent): string {
  const { time, status, online, userid, clientid } = data;
  return `id: ${id}\ndata: ${JSON.stringify({ time, status, online, userid, clientid })}\n\n`;
}
