import { once } from "node:events";
import { type Socket, connect } from "node:net";

export type ResponseHead = { status: number; headers: Headers };

/** Connects to the server of a URL. */
export async function openSocket(url: string): Promise<Socket> {
  const { hostname, port } = new URL(url);
  const socket = connect({ host: hostname, port: Number(port), noDelay: true });
  await once(socket, "connect");
  return socket;
}

/** Returns a request line such as `GET /`, its headers and the empty line. */
export function requestHead(line: string, headers: Record<string, string | number>): string {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  return `${line} HTTP/1.1\r\n${lines.join("")}\r\n`;
}

/** Parses the head of a response. */
export function parseHead(text: string): ResponseHead {
  const [statusLine = "", ...lines] = text.trimEnd().split("\r\n");
  const headers = new Headers(
    lines.map((line): [string, string] => {
      const colon = line.indexOf(":");
      return [line.slice(0, colon), line.slice(colon + 1).trim()];
    }),
  );
  return { status: Number(statusLine.split(" ")[1]), headers };
}
