import { once } from "node:events";
import { createServer, type Socket } from "node:net";

import { portOf } from "./push-servers.ts";

/**
 * Starts an HTTP/2 server that refuses the first `refusals` streams of each connection with
 * REFUSED_STREAM, and answers the others 200.
 */
export async function startRefusingServer(
  refusals: number,
): Promise<AsyncDisposable & { url: string }> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    serveFrames(socket, refusals);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${portOf(server)}`,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}

const PREFACE_BYTES = 24;
const FRAME_HEAD_BYTES = 9;
const TYPE = { data: 0, headers: 1, reset: 3, settings: 4 } as const;
const END_STREAM = 1;
const END_HEADERS = 4;
const ACK = 1;
const STATUS_200 = Buffer.from([0x88]);
const REFUSED = Buffer.from([0, 0, 0, 7]);

function serveFrames(socket: Socket, refusals: number): void {
  let bytes: Buffer = Buffer.alloc(0);
  let isOpen = false;
  let streams = 0;
  socket.on("data", (chunk: Buffer) => {
    bytes = Buffer.concat([bytes, chunk]);
    if (!isOpen) {
      if (bytes.length < PREFACE_BYTES) return;
      bytes = bytes.subarray(PREFACE_BYTES);
      isOpen = true;
      socket.write(frame(TYPE.settings, 0, 0));
    }
    while (bytes.length >= FRAME_HEAD_BYTES) {
      const length = bytes.readUIntBE(0, 3);
      if (bytes.length < FRAME_HEAD_BYTES + length) return;
      const [type, flags, id] = [bytes[3], bytes[4] ?? 0, bytes.readUInt32BE(5)];
      bytes = bytes.subarray(FRAME_HEAD_BYTES + length);
      if (type === TYPE.settings && (flags & ACK) === 0) socket.write(frame(TYPE.settings, ACK, 0));
      if ((type !== TYPE.data && type !== TYPE.headers) || (flags & END_STREAM) === 0) continue;
      streams += 1;
      if (streams <= refusals) socket.write(frame(TYPE.reset, 0, id, REFUSED));
      else socket.write(frame(TYPE.headers, END_STREAM | END_HEADERS, id, STATUS_200));
    }
  });
}

function frame(type: number, flags: number, id: number, payload = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(FRAME_HEAD_BYTES);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(id, 5);
  return Buffer.concat([head, payload]);
}
