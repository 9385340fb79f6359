import { once } from "node:events";
import { createServer } from "node:net";

import { portOf } from "./push-servers.ts";

/** Takes connections and closes them, as a proxy does whose own server is down. */
export async function startClosingServer(): Promise<
  AsyncDisposable & { port: number; readonly closed: number }
> {
  let closed = 0;
  const server = createServer((socket) => {
    closed += 1;
    socket.on("error", () => undefined);
    // Reads what is sent: otherwise the kernel would answer it with a reset.
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
