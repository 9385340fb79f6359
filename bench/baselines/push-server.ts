import http2 from "node:http2";
import { type AddressInfo } from "node:net";
import { constants, setPriority } from "node:os";

import { announce } from "../helper.ts";

/**
 * Simulates APNs and FCM over cleartext HTTP/2: answers every push 200 after the latency. The
 * announced port serves HTTP: /push returns the URL for pushes, /token is the token endpoint,
 * /counts returns the number of pushes received.
 */
// The real servers run on other machines and do not compete for the CPU.
setPriority(constants.priority.PRIORITY_LOW);
const latencyMs = Number(process.argv[2] ?? 100);
const STREAMS_MAX = 1000;
const TICK_MS = 2;

const seen = new Set<number>();
const counts = { apns: 0, fcm: 0, tokens: 0, distinctApnsIds: 0, distinctFcmTokens: 0 };
/** Oldest first. All wait equally long, so one timer is enough. */
let waiting: { stream: http2.ServerHttp2Stream; headers: http2.OutgoingHttpHeaders; at: number }[] =
  [];

const FCM_ANSWER = Buffer.from('{"name":"projects/bench/messages/1"}');
const FCM_TOKEN = /"token":"([^"]*)"/;

const push = http2.createServer({
  settings: { maxConcurrentStreams: STREAMS_MAX, initialWindowSize: 2 ** 20 },
});
push.on("session", (session) => {
  session.on("error", () => undefined);
  session.setLocalWindowSize(2 ** 24);
});
push.on("stream", (stream: http2.ServerHttp2Stream, headers) => {
  stream.on("error", () => undefined);
  const apnsId = headers["apns-id"];
  const answer = (reply: http2.OutgoingHttpHeaders) =>
    waiting.push({ stream, headers: reply, at: performance.now() + latencyMs });
  if (typeof apnsId === "string") {
    counts.apns += 1;
    if (isNew(apnsId)) counts.distinctApnsIds += 1;
    stream.resume();
    answer({ ":status": 200, "apns-id": apnsId });
    return;
  }
  let text = "";
  stream.on("data", (chunk: Buffer) => (text += chunk.toString("latin1")));
  stream.on("end", () => {
    counts.fcm += 1;
    if (isNew(FCM_TOKEN.exec(text)?.[1] ?? "")) counts.distinctFcmTokens += 1;
    answer({ ":status": 200, "content-type": "application/json" });
  });
});

setInterval(() => {
  const nowMs = performance.now();
  let due = 0;
  for (const { stream, headers, at } of waiting) {
    if (at > nowMs) break;
    due += 1;
    if (stream.destroyed) continue;
    const isFcm = headers["content-type"] !== undefined;
    stream.respond(headers, { endStream: !isFcm });
    if (isFcm) stream.end(FCM_ANSWER);
  }
  if (due > 0) waiting = waiting.slice(due);
}, TICK_MS);

/** Returns whether the name is new; keeps only a hash of each, as there may be a million. */
function isNew(name: string): boolean {
  const before = seen.size;
  seen.add(Number(Bun.hash(name) & 0x1f_ffff_ffff_ffffn));
  return seen.size > before;
}

push.listen(0, "127.0.0.1", () => {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- a TCP server's address is one
  const { port } = push.address() as AddressInfo;
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    routes: {
      "/push": () => new Response(`http://127.0.0.1:${port}`),
      "/counts": () => Response.json(counts),
      "/token": () => {
        counts.tokens += 1;
        return Response.json({ access_token: "bench", token_type: "Bearer", expires_in: 3600 });
      },
    },
  });
  announce(server.port);
});
