import { timingSafeEqual } from "node:crypto";

import { AppError } from "../errors.ts";

/**
 * Guards the management routes by `X-Server-Key`. Without a configured key they refuse every
 * request.
 */
export class ServerKeys {
  readonly #digests: Uint8Array[];

  constructor(keys: string[]) {
    this.#digests = keys.map(digest);
  }

  /**
   * Throws 403 unless the request has a server key, whatever its address. `refusal` replaces the
   * error text.
   */
  check(request: Request, refusal?: string): void {
    if (this.#digests.length === 0)
      throw new AppError("forbidden", refusal ?? "no server key is configured: set SERVER_KEYS");
    const key = request.headers.get("x-server-key");
    if (key === null) throw new AppError("forbidden", refusal ?? "missing X-Server-Key");
    const given = digest(key);
    // Digests have one length, and every key is compared, so that timing reveals nothing.
    const matches = this.#digests.filter((known) => timingSafeEqual(known, given));
    if (matches.length === 0) throw new AppError("forbidden", refusal ?? "wrong X-Server-Key");
  }
}

function digest(key: string): Uint8Array {
  return new Bun.CryptoHasher("sha256").update(key).digest();
}
