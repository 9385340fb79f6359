import { timingSafeEqual } from "node:crypto";

import { type Sql } from "../platform/database/database.ts";
import { AppError, UsageError } from "../platform/errors.ts";
import { type Service } from "../platform/lifecycle.ts";
import { type Log } from "../platform/logger.ts";
import { Snapshot } from "../platform/snapshot.ts";

const REFRESH_MS = 2000;
const TEXT_BYTES = 32;
const TEXT = /^[\x21-\x7e]{16,256}$/;

/**
 * A `client` key may only report installs, because every copy of an app contains it; a `service`
 * key may publish and list.
 */
export const ROLES = ["client", "service"] as const;
export type Role = (typeof ROLES)[number];

export type ApiKey = { id: number; role: Role; createdAt: Date; revokedAt: Date | null };
type Valid = { role: Role; digest: Uint8Array };

/**
 * Checks and manages the keys of the update server, which clients send in the header `signature`.
 * Only their digests are stored.
 */
export class ApiKeys implements Service {
  readonly #sql: Sql;
  readonly #valid: Snapshot<Valid[]>;

  constructor({ sql, log }: { sql: Sql; log: Log }) {
    this.#sql = sql;
    this.#valid = new Snapshot({
      name: "signatures",
      empty: [],
      read: async () => await selectValid(sql),
      everyMs: REFRESH_MS,
      log,
    });
  }

  /** Reads the valid keys now and repeatedly from then on. */
  async start(signal: AbortSignal): Promise<void> {
    await this.#valid.start(signal);
  }

  /** Throws 401 unless the request has a valid key, 403 unless that has exactly this role. */
  async check(request: Request, role: Role): Promise<void> {
    const text = request.headers.get("signature") ?? "";
    // Text that cannot be a key is not worth a query.
    if (!TEXT.test(text)) throw unknown();
    const given = digestOf(text);
    let found = this.#find(given);
    if (found === undefined) {
      await this.#valid.again();
      found = this.#find(given);
    }
    if (found === undefined) throw unknown();
    if (found.role !== role) throw new AppError("forbidden", "forbidden");
  }

  async list(): Promise<ApiKey[]> {
    const sql = this.#sql;
    return await sql<ApiKey[]>`
      select id, role, created_at as "createdAt", revoked_at as "revokedAt" from signatures order by id`;
  }

  /** Creates a key and returns its text, which is not stored. */
  async create({ role, signature = randomText() }: { role: Role; signature?: string }) {
    // The message must not contain the text, which may be in use elsewhere.
    if (!TEXT.test(signature))
      throw new UsageError("a signature has 16 to 256 visible ASCII characters");
    const sql = this.#sql;
    const [row] = await sql<{ id: number }[]>`
      insert into signatures (role, digest) values (${role}, ${digestOf(signature)})
      on conflict (digest) do nothing returning id`;
    if (row === undefined)
      throw new UsageError("that signature exists; a revoked one cannot be used again");
    return { id: row.id, role, signature };
  }

  /** Revokes a key; one that is revoked already keeps its time. */
  async revoke(id: number): Promise<ApiKey> {
    const sql = this.#sql;
    const [row] = await sql<ApiKey[]>`
      update signatures set revoked_at = coalesce(revoked_at, now()) where id = ${id}
      returning id, role, created_at as "createdAt", revoked_at as "revokedAt"`;
    if (row === undefined) throw new UsageError(`there is no signature ${id}`);
    return row;
  }

  /** Finds a key in constant time: compares with every digest, all of which have one length. */
  #find(given: Uint8Array): Valid | undefined {
    const [found] = this.#valid.value.filter(({ digest }) => timingSafeEqual(digest, given));
    return found;
  }
}

async function selectValid(sql: Sql): Promise<Valid[]> {
  return await sql<Valid[]>`select role, digest from signatures where revoked_at is null`;
}

function unknown(): AppError {
  return new AppError("unauthorized", "record not found");
}

function randomText(): string {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(TEXT_BYTES))).toString("base64url");
}

function digestOf(text: string): Uint8Array {
  return new Bun.CryptoHasher("sha256").update(text).digest();
}
