import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { pack } from "msgpackr";
import { Type } from "typebox";
import { Value } from "typebox/value";

import { objectOf } from "../../support/answers.ts";
import { TestApp } from "../../support/app.ts";
import { eventually } from "../../support/eventually.ts";
import { BOUNDARY } from "../../support/forms.ts";
import {
  type HostileBody,
  hostileBatches,
  hostileForms,
  hostileJson,
} from "../../support/hostile-bodies.ts";
import { type HostileRequest, hostileHeads } from "../../support/hostile-heads.ts";
import { projectField } from "../../support/images.ts";
import { aProject } from "../../support/projects.ts";
import { claim } from "../../support/presence.ts";
import { RawConnection } from "../../support/raw-connection.ts";
import { RawSocket, maskedFrame } from "../../support/raw-socket.ts";
import { ServerProcess, envOf } from "../../support/server-process.ts";
import { UpdateApi, aSignature } from "../../support/updates.ts";
import { MAIN } from "../../support/program.ts";

const HOLD_MS_MAX = 50;
/**
 * Repetitions of a slow request: one that blocks the event loop does so every time, garbage
 * collection and JIT compilation do not.
 */
const TRIES = 8;
/**
 * Requests without a body sent together; each is sent alone only if the group blocked the event
 * loop.
 */
const HEADS_AT_ONCE = 20;
/** Forms that take a second or more. */
const SLOW_FORMS = [
  "a thousand archives",
  "a tar of zeros",
  "an archive in gzip",
  "a bomb of lines",
];
const JSON_BYTES_MAX = 131_072;
const DOWNLOAD = "/source/hostile.apk";
const IS_LONG = process.env["TEST_LONG"] !== undefined;

const Document = Type.Object({
  paths: Type.Record(
    Type.String(),
    Type.Record(
      Type.String(),
      Type.Object({
        security: Type.Optional(Type.Array(Type.Record(Type.String(), Type.Unknown()))),
      }),
    ),
  ),
});

let app: TestApp;
let server: ServerProcess;
let turns: string;
let bearer: string;

beforeAll(async () => {
  app = await TestApp.start({ env: { TRUSTED_PROXIES: "127.0.0.0/8" } });
  turns = join(app.config.dataDir, "turns");
  await (await UpdateApi.of(app)).published({ name: "hostile.apk" });
  bearer = `authorization: Bearer ${(await app.aSession()).token}`;
  const script = ["--preload", "./test/support/turns.ts", MAIN, "serve"];
  server = await ServerProcess.start({ ...envOf(app), TURNS_SOCKET: turns }, script);
});

afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await app[Symbol.asyncDispose]();
});

/**
 * Returns the CPU time of the longest turn of the server's event loop since the last call, in ms.
 */
async function longestTurn(): Promise<number> {
  return Number(await (await fetch("http://turns/", { unix: turns })).text());
}

/** Sends the request and waits for the head of the response. */
async function send({ line, headers = [], body }: HostileRequest): Promise<void> {
  using connection = await RawConnection.open(server.url);
  const length = body === undefined ? [] : [`content-length: ${body.length}`];
  const lines = [`${line} HTTP/1.1`, "host: a", ...headers, ...length];
  connection.write(`${lines.join("\r\n")}\r\n\r\n`, ...(body === undefined ? [] : [body]));
  await connection.answered();
}

/**
 * Returns the requests that block the event loop each time that they are sent, with their shortest
 * time.
 */
async function held<T>(
  acts: T[],
  act: (one: T) => Promise<void>,
  atOnce = 1,
): Promise<[one: T, ms: number][]> {
  const holders: [T, number][] = [];
  for (let at = 0; at < acts.length; at += atOnce) {
    const group = acts.slice(at, at + atOnce);
    await longestTurn();
    await Promise.all(group.map(act));
    if ((await longestTurn()) <= HOLD_MS_MAX) continue;
    for (const one of group) {
      let least = Number.POSITIVE_INFINITY;
      for (let n = 0; n < TRIES && least > HOLD_MS_MAX; n++) {
        await act(one);
        least = Math.min(least, await longestTurn());
      }
      if (least > HOLD_MS_MAX) holders.push([one, least]);
    }
  }
  return holders;
}

async function holdersOf(
  requests: HostileRequest[],
  atOnce = 1,
): Promise<[name: string, ms: number][]> {
  return (await held(requests, send, atOnce)).map(([{ line, name }, ms]) => [
    `${line}: ${name}`,
    ms,
  ]);
}

function posts(path: string, bodies: HostileBody[], ...headers: string[]): HostileRequest[] {
  return bodies.map(([name, body, coding]) => ({
    name,
    line: `POST ${path}`,
    headers: coding === undefined ? headers : [...headers, `content-encoding: ${coding}`],
    body,
  }));
}

describe("no request of a client without a key holds the event loop", () => {
  test("by its head", async () => {
    expect(await holdersOf(hostileHeads(DOWNLOAD), HEADS_AT_ONCE)).toEqual([]);
  });

  test("by JSON", async () => {
    const fields = `{"projectID":${app.projectID},"trackerVersion":"1.0.14",`;
    const bodies = hostileJson(JSON_BYTES_MAX - fields.length).map(([name, json]): HostileBody => [
      name,
      Buffer.from(Buffer.from(json).toString().replace("{", fields)),
    ]);
    const signature = `signature: ${await aSignature(app, "client")}`;
    const requests = [
      ...posts("/v1/ios/start", bodies, "user-agent: CFNetwork/1"),
      ...posts("/v1/mobile/start", bodies, `user-agent: Mozilla/5.0 ${"(a; ".repeat(2000)}`),
      ...posts("/api/v1/users", hostileJson(64 * 1024), signature),
      ...posts("/ping", hostileJson(4096), 'x-user-claim: {"userid":"a","clientid":"b"}'),
    ];
    expect(await holdersOf(requests)).toEqual([]);
  });

  test("by a batch", async () => {
    const bodies = hostileBatches(1_000_000);
    const paths = ["/v1/ios/append", "/v1/mobile/late"];
    const requests = paths.flatMap((path) => posts(path, bodies, bearer));
    expect(await holdersOf(requests)).toEqual([]);
  });

  test("by a batch of a project whose batches may be larger", async () => {
    const bytes = (IS_LONG ? 64 : 8) * 2 ** 20;
    const { projectID } = await aProject(app, { beaconBytesMax: bytes });
    const { token } = await app.aSession({ projectID });
    const start = JSON.stringify({ projectID, trackerVersion: "1.0.14" });
    await eventually("the server beside knows the project", async () => {
      const answer = await fetch(`${server.url}/v1/ios/start`, { method: "POST", body: start });
      return (await objectOf(answer))["beaconSizeLimit"] === bytes;
    });
    const requests = posts(
      "/v1/ios/append",
      hostileBatches(bytes),
      `authorization: Bearer ${token}`,
    );
    expect(await holdersOf(requests)).toEqual([]);
  });

  test("by a form", async () => {
    const type = `content-type: multipart/form-data; boundary=${BOUNDARY}`;
    const bodies = hostileForms([projectField(app)]).filter(
      ([name]) => IS_LONG || !SLOW_FORMS.includes(name),
    );
    expect(await holdersOf(posts("/v1/ios/images", bodies, bearer, type))).toEqual([]);
  });

  test("by a frame of a WebSocket", async () => {
    const users = Array.from({ length: 200 }, (_, n) => `user-${n}-${"x".repeat(100)}`);
    const texts = [
      JSON.stringify({ type: "subscribe", users }),
      JSON.stringify({ type: "subscribe", users: Array.from({ length: 15_000 }, () => "a") }),
      ...hostileJson(64 * 1024).map(([, json]) => Buffer.from(json).toString()),
      "[".repeat(1_000_000),
      '{"type":"ping","status":"'.padEnd(1_000_000, "a"),
    ];
    const binary = [
      pack({ type: "subscribe", users }),
      Buffer.alloc(64 * 1024 - 1, 0x91),
      Buffer.alloc(64 * 1024 - 1, 0xdf),
      Buffer.concat([Buffer.from("dd00ffffff", "hex"), Buffer.alloc(65_000, 0xc0)]),
      Buffer.alloc(64 * 1024 - 1, 0xd9),
      Buffer.alloc(1_000_000, 0x81),
    ];
    const frames = [
      ...texts.map((text) => ({ headers: {}, opcode: 1, payload: Buffer.from(text) })),
      ...binary.map((payload) => ({
        headers: { "sec-websocket-protocol": "floodgate.msgpack" },
        opcode: 2,
        payload: Buffer.from(payload),
      })),
    ];
    const holders = await held(frames, async ({ headers, opcode, payload }) => {
      using socket = await RawSocket.open(server, { headers: { ...claim("a", "b"), ...headers } });
      expect(socket.status).toBe(101);
      socket.write(maskedFrame(opcode, payload));
      await socket.isRead();
      // The user may have waited for the database, as this request does.
      await fetch(`${server.url}/readyz`);
    });
    expect(holders).toEqual([]);
  });

  test("on any route that is open", async () => {
    const { paths } = Value.Parse(Document, await objectOf(app.fetch("/docs/json")));
    const lines = hostileHeads(DOWNLOAD).map(({ line }) => line);
    for (const [path, operations] of Object.entries(paths))
      for (const [method, { security = [] }] of Object.entries(operations)) {
        if (security.some((one) => "serverKey" in one || "signature" in one)) continue;
        const start = `${method.toUpperCase()} ${path.split("{")[0]}`;
        expect(lines.some((line) => line.startsWith(start)) || start).toBe(true);
      }
  });
});
