import { timingSafeEqual } from "node:crypto";

import { type Clients, isLoopback } from "./clients.ts";
import { AppError } from "./errors.ts";

const FORWARDING_HEADERS = [
  "x-forwarded-for",
  "x-forwarded-host",
  "x-forwarded-proto",
  "x-real-ip",
  "forwarded",
  "via",
];

/** Guards the management routes: by `X-Server-Key`, or while no key is configured by being a local caller. */
export class ServerKeys {
  readonly #digests: Uint8Array[];
  readonly #clients: Clients;

  constructor(keys: string[], clients: Clients) {
    this.#digests = keys.map(digest);
    this.#clients = clients;
  }

  /** Throws 403 unless the caller may manage. */
  check(request: Request): void {
    if (this.#digests.length > 0) this.checkKey(request);
    else if (!this.#isLocal(request))
      throw new AppError("forbidden", "set SERVER_KEYS to use this route from elsewhere");
  }

  /** Throws 403 unless the caller has a key, wherever it is. */
  checkKey(request: Request): void {
    const key = request.headers.get("x-server-key");
    if (key === null) throw new AppError("forbidden", "missing X-Server-Key");
    const given = digest(key);
    // Digests have one length, and every key is compared, so that time tells nothing.
    const matches = this.#digests.filter((known) => timingSafeEqual(known, given));
    if (matches.length === 0) throw new AppError("forbidden", "wrong X-Server-Key");
  }

  /** Without keys only a program on this machine may manage: not through a proxy that says so, and not a web page in the operator's browser. */
  #isLocal(request: Request): boolean {
    const { headers } = request;
    const host = hostname(headers.get("host") ?? "");
    if (!isLoopback(this.#clients.peer(request))) return false;
    if (FORWARDING_HEADERS.some((name) => headers.has(name))) return false;
    if (host !== "localhost" && !isLoopback(host)) return false;
    const origin = headers.get("origin");
    return origin === null || origin === `http://${headers.get("host")}`;
  }
}

function hostname(host: string): string {
  return host.replace(/:\d+$/, "").replace(/^\[(.*)\]$/, "$1");
}

function digest(key: string): Uint8Array {
  return new Bun.CryptoHasher("sha256").update(key).digest();
}
