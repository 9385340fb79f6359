import { announce } from "./helper.ts";

/**
 * Floor for presence: the least work with which a server on Bun holds subscribers and publishes to
 * them. It keeps no state, authenticates nobody and gets every event ready-made; paths and the
 * subscribe frame are those of Floodgate.
 */
type Stream = ReadableStreamDefaultController<string>;
const streams = new Map<string, Set<Stream>>();
const SSE_HEADERS = { "content-type": "text/event-stream", "cache-control": "no-cache" };

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  // Idle connections are measured, so they must stay open.
  idleTimeout: 0,
  routes: {
    "/presence/ws": (request, self) =>
      self.upgrade(request) ? undefined : new Response(null, { status: 400 }),
    "/subscribe/:user/client/:client": ({ params }) => subscribe(params.user),
    "/publish/websocket/:user": {
      POST: async (request, self) => {
        self.publish(request.params.user, await request.text());
        return new Response();
      },
    },
    "/publish/sse/:user": {
      POST: async (request) => {
        const event = await request.text();
        for (const stream of streams.get(request.params.user) ?? []) stream.enqueue(event);
        return new Response();
      },
    },
  },
  fetch: () => new Response(null, { status: 404 }),
  websocket: {
    message: (socket, message) => {
      const { users }: { users: string[] } = JSON.parse(String(message));
      for (const user of users) socket.subscribe(user);
    },
  },
});
announce(server.port);

function subscribe(user: string): Response {
  let all = streams.get(user);
  if (all === undefined) streams.set(user, (all = new Set()));
  const members = all;
  let own: Stream | undefined;
  const body = new ReadableStream<string>({
    start: (controller) => {
      own = controller;
      members.add(controller);
      controller.enqueue(":\n\n");
    },
    cancel: () => {
      if (own !== undefined) members.delete(own);
    },
  });
  return new Response(body, { headers: SSE_HEADERS });
}
