import { once } from "node:events";
import { createServer } from "node:net";

import { portOf } from "./push-servers.ts";

/** Starts a server that accepts and closes connections, like a proxy whose upstream is down. */
export async function startClosingServer(): Promise<
  AsyncDisposable & { port: number; readonly closed: number }
> {
  let closed = 0;
  const server = createServer((socket) => {
    closed += 1;
    socket.on("error", () => undefined);
    // Reads the client's bytes: otherwise the kernel would reset the connection.
    socket.resume();
    socket.end();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: portOf(server),
    get closed() {
      return closed;
    },
    [Symbol.asyncDispose]: async () => {
      server.close();
    },
  };
}
