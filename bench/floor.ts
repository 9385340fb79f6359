import { announce } from "./helper.ts";

/**
 * Floor: the least that any server on Bun does for a request, which is to read the body and answer.
 * `buffer` reads the body in one piece, `drain` reads the stream and discards it.
 */
const buffered = process.argv[2] === "buffer";

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  maxRequestBodySize: 2 ** 30,
  fetch: async (request) => {
    if (buffered) await request.bytes();
    else if (request.body !== null) for await (const _ of request.body);
    return new Response();
  },
});
announce(server.port);
