import { isIP } from "node:net";

import ipaddr from "ipaddr.js";

import { type AddressRange, parseAddressRange } from "../config/config-values.ts";
import { networkOf } from "./rate-limits.ts";
import { type WebSocketOwner } from "./websocket.ts";

type Server = {
  requestIP(request: Request): { address: string } | null;
  upgrade(
    request: Request,
    options: { data: WebSocketOwner; headers: Record<string, string> },
  ): boolean;
};

/** Finds out who sent a request: the TCP peer, and the client's address behind trusted proxies. */
export class Clients {
  readonly #trusted: AddressRange[];
  /** Peers of requests that became WebSockets, which Bun no longer reports. */
  readonly #peers = new WeakMap<Request, string>();
  #server: Server | undefined;

  constructor(trustedProxies: string[]) {
    this.#trusted = trustedProxies
      .map((text) => parseAddressRange(text))
      .filter((range) => range !== undefined);
  }

  attach(server: Server): void {
    this.#server = server;
  }

  peer(request: Request): string {
    return this.#peers.get(request) ?? this.#server?.requestIP(request)?.address ?? "";
  }

  /** Upgrades the connection to a WebSocket. Returns false if the request does not ask for that. */
  upgrade(request: Request, data: WebSocketOwner, headers: Record<string, string>): boolean {
    this.#peers.set(request, this.peer(request));
    return this.#server?.upgrade(request, { data, headers }) ?? false;
  }

  /** Returns whether the TCP peer is a trusted proxy. */
  isProxied(request: Request): boolean {
    const peer = canonical(this.peer(request));
    return peer !== "" && this.#isTrusted(peer);
  }

  /** Returns the URL's scheme and host as the client sees them, without a path. */
  origin(request: Request): string {
    const { headers } = request;
    const [host, scheme] = [headers.get("x-forwarded-host"), headers.get("x-forwarded-proto")];
    const isTold = (host !== null || scheme !== null) && this.isProxied(request);
    const told = (header: string | null) => (isTold ? header?.split(",")[0]?.trim() : undefined);
    return `${told(scheme) === "https" ? "https" : "http"}://${told(host) || headers.get("host") || "localhost"}`;
  }

  /**
   * Returns the client's address: the peer's, or if that is a trusted proxy, the rightmost address
   * in X-Forwarded-For that is not one.
   */
  address(request: Request): string {
    let address = canonical(this.peer(request));
    const forwarded = request.headers.get("x-forwarded-for")?.split(",").toReversed() ?? [];
    for (const hop of forwarded) {
      if (address === "" || !this.#isTrusted(address)) break;
      // An empty list item is ignored, as in any HTTP list header.
      if (hop.trim() === "") continue;
      const next = canonical(addressOf(hop.trim()));
      if (next === "") break;
      address = next;
    }
    return address;
  }

  /**
   * Returns the client's network, by which limits per client count. Undefined if the address may be
   * shared by many clients: the address of a trusted proxy that does not name the client, or a
   * private address that no trusted proxy confirmed.
   */
  network(request: Request): string | undefined {
    const peer = canonical(this.peer(request));
    const address = this.address(request);
    if (address === "") return undefined;
    const isOwn = !this.#isTrusted(address) && (address !== peer || isPublic(peer));
    return isOwn ? networkOf(address) : undefined;
  }

  #isTrusted(address: string): boolean {
    const parsed = ipaddr.parse(address);
    return this.#trusted.some(
      ([range, bits]) => range.kind() === parsed.kind() && parsed.match([range, bits]),
    );
  }
}

function isPublic(address: string): boolean {
  return ipaddr.parse(address).range() === "unicast";
}

const IN_BRACKETS = /^\[([^\]]*)\](?::\d*)?$/;
const WITH_PORT = /^([^:]*):\d*$/;

/** Strips the quotes, brackets and port that some proxies write around a hop's address. */
function addressOf(hop: string): string {
  const plain = hop.replace(/^"(.*)"$/, "$1").trim();
  const [, address = plain] = IN_BRACKETS.exec(plain) ?? WITH_PORT.exec(plain) ?? [];
  return address;
}

/**
 * Normalizes an address: IPv4-mapped IPv6 becomes IPv4, and a zone is dropped. Returns "" if it is
 * not an IP address.
 */
function canonical(address: string): string {
  const [plain = ""] = address.split("%");
  // Check first: the library also accepts legacy forms, such as octal numbers, which others read as
  // another address.
  const version = isIP(plain);
  if (version === 4) return plain;
  return version === 6 ? ipaddr.process(plain).toString() : "";
}
