import { timingSafeEqual } from "node:crypto";
import { base58 } from "@scure/base";
import { LRUCache } from "lru-cache";

/** `delay` is server minus client clock in ms, `expiresAt` is epoch ms. */
export type Claims = { sessionId: bigint; delay: number; expiresAt: number };
export type SessionToken = Claims & { kind: "valid" | "just_expired" | "expired" };

/** These patterns bound a token to 83 characters. */
const FIELDS = /^[0-9a-z]{1,13}\.-?[0-9a-z]{1,11}\.[0-9a-z]{1,11}$/;
const SIGNATURE = /^[1-9A-HJ-NP-Za-km-z]{32,44}$/;
const SESSION_ID_MAX = 2n ** 63n - 1n;
// About 250 bytes each.
const VERIFIED_MAX = 20_000;
const JUST_EXPIRED_MS = 30_000;

/**
 * Signs and verifies session tokens in OpenReplay's format: session id, delay and expiry in base36,
 * then their HMAC-SHA256 in base58.
 */
export class Tokens {
  readonly #signer: Bun.CryptoHasher;
  readonly #hashers: Bun.CryptoHasher[];
  /** Claims of tokens whose signature was right: an SDK sends the same one with every batch. */
  readonly #verified = new LRUCache<string, Claims>({ max: VERIFIED_MAX });

  /**
   * Signs with the first secret and verifies with all of them, so that a secret can be replaced
   * without ending sessions.
   */
  constructor(secrets: readonly string[]) {
    const [first] = secrets;
    if (!first || secrets.includes("")) throw new Error("A token secret is missing or empty.");
    this.#signer = hasher(first);
    this.#hashers = secrets.map(hasher);
  }

  sign(claims: Claims): string {
    const fields = write(claims);
    return `${fields}.${base58.encode(hmac(this.#signer, fields))}`;
  }

  /**
   * Returns the token's claims, also of an expired one; undefined if none of the secrets signed it.
   * `now` is epoch ms.
   */
  verify(token: string, now: number): SessionToken | undefined {
    const known = this.#verified.get(token) ?? this.#read(token);
    return known && { kind: kindOf(known.expiresAt, now), ...known };
  }

  #read(token: string): Claims | undefined {
    const dot = token.lastIndexOf(".");
    const fields = token.slice(0, dot);
    const signature = token.slice(dot + 1);
    if (!FIELDS.test(fields) || !SIGNATURE.test(signature)) return undefined;
    const sent = base58.decode(signature);
    if (!this.#hashers.some((key) => equal(hmac(key, fields), sent))) return undefined;
    const claims = read(fields);
    if (claims !== undefined) this.#verified.set(token, claims);
    return claims;
  }
}

function write({ sessionId, delay, expiresAt }: Claims): string {
  return `${sessionId.toString(36)}.${delay.toString(36)}.${expiresAt.toString(36)}`;
}

/**
 * Accepts only fields as `write` writes them, without leading zeros, `-0` or rounded numbers, and
 * session ids that fit PostgreSQL's bigint.
 */
function read(fields: string): Claims | undefined {
  const [id = "", delay = "", expiresAt = ""] = fields.split(".");
  const claims = {
    sessionId: parseBase36(id),
    delay: Number.parseInt(delay, 36),
    expiresAt: Number.parseInt(expiresAt, 36),
  };
  return claims.sessionId <= SESSION_ID_MAX && write(claims) === fields ? claims : undefined;
}

/** Parses in two halves, because a number holds ten base36 digits exactly but not thirteen. */
function parseBase36(digits: string): bigint {
  const low = digits.slice(-10);
  const high = digits.slice(0, -10) || "0";
  return BigInt(Number.parseInt(high, 36)) * 36n ** 10n + BigInt(Number.parseInt(low, 36));
}

function kindOf(expiresAt: number, now: number): SessionToken["kind"] {
  if (expiresAt > now) return "valid";
  return now < expiresAt + JUST_EXPIRED_MS ? "just_expired" : "expired";
}

function hasher(secret: string): Bun.CryptoHasher {
  return new Bun.CryptoHasher("sha256", secret);
}

/** Copies the keyed hasher, which takes two thirds of the time of keying a new one. */
function hmac(key: Bun.CryptoHasher, text: string): Uint8Array {
  return key.copy().update(text).digest();
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && timingSafeEqual(a, b);
}
