import ipaddr from "ipaddr.js";

type Server = { requestIP: (request: Request) => { address: string } | null };
type Range = [ipaddr.IPv4 | ipaddr.IPv6, number];

/** Who sent a request: the TCP peer, and the client's address behind trusted proxies. */
export class Clients {
  readonly #trusted: Range[];
  readonly #peers = new WeakMap<Request, string>();
  #server: Server | undefined;

  constructor(trustedProxies: string[]) {
    this.#trusted = trustedProxies.map((cidr) => ipaddr.parseCIDR(cidr));
  }

  attach(server: Server): void {
    this.#server = server;
  }

  /** Lets a rewritten request keep the peer of the one that came in. */
  rename(original: Request, rewritten: Request): void {
    this.#peers.set(rewritten, this.peer(original));
  }

  peer(request: Request): string {
    return this.#peers.get(request) ?? this.#server?.requestIP(request)?.address ?? "";
  }

  /** From the right of X-Forwarded-For, the first address that is not a trusted proxy's; the peer's when the peer is not trusted. */
  address(request: Request): string {
    let address = canonical(this.peer(request));
    const forwarded = request.headers.get("x-forwarded-for")?.split(",").toReversed() ?? [];
    for (const hop of forwarded) {
      if (address === "" || !this.#isTrusted(address)) break;
      const next = canonical(hop.trim());
      if (next === "") break;
      address = next;
    }
    return address;
  }

  #isTrusted(address: string): boolean {
    const parsed = ipaddr.parse(address);
    return this.#trusted.some(
      ([range, bits]) => range.kind() === parsed.kind() && parsed.match([range, bits]),
    );
  }
}

export function isLoopback(address: string): boolean {
  const plain = canonical(address);
  return plain !== "" && ipaddr.parse(plain).range() === "loopback";
}

/** IPv4 written as IPv6 becomes IPv4; what is no address becomes "". */
function canonical(address: string): string {
  return ipaddr.isValid(address) ? ipaddr.process(address).toString() : "";
}
