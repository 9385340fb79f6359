import { announce } from "./helper.ts";

/** Floor for updates: a bare server that answers every request with a constant text or a file. */
const [kind, what = ""] = process.argv.slice(2);
const headers = { "content-type": "application/json; charset=utf-8" };

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  fetch:
    kind === "file" ? () => new Response(Bun.file(what)) : () => new Response(what, { headers }),
});
announce(server.port);
