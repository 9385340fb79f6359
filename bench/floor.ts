import { announce } from "./helper.ts";

/**
 * Floor: the least that any server on Bun does for a request, which is to read the body in one
 * piece and answer.
 */
const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  maxRequestBodySize: 2 ** 30,
  fetch: async (request) => {
    await request.bytes();
    return new Response();
  },
});
announce(server.port);
