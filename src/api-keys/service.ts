import { timingSafeEqual } from "node:crypto";

import { type Sql } from "../platform/database/database.ts";
import { AppError, UsageError } from "../platform/errors.ts";
import { type Service } from "../platform/lifecycle.ts";
import { type Log } from "../platform/logger.ts";
import { Snapshot } from "../platform/snapshot.ts";

const REFRESH_MS = 2000;
const TEXT_BYTES = 32;
const TEXT = /^[\x21-\x7e]{16,256}$/;

/** `client` may report users and no more, because it lies in every copy of an app; `service` may publish and list. */
export const ROLES = ["client", "service"] as const;
export type Role = (typeof ROLES)[number];

export type Signature = { id: number; role: Role; createdAt: Date; revokedAt: Date | null };
type Valid = { role: Role; digest: Uint8Array };

/** Who may use the update server. The texts themselves are nowhere, only their digests. */
export class Signatures implements Service {
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

  /** Reads the valid ones now and from then on. */
  async start(signal: AbortSignal): Promise<void> {
    await this.#valid.start(signal);
  }

  /** Throws 401 unless the request has a valid signature, 403 unless that has exactly this role. */
  async check(request: Request, role: Role): Promise<void> {
    const text = request.headers.get("signature") ?? "";
    // What cannot be one is not worth a reading.
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

  async list(): Promise<Signature[]> {
    const sql = this.#sql;
    return await sql<Signature[]>`
      select id, role, created_at as "createdAt", revoked_at as "revokedAt" from signatures order by id`;
  }

  /** The only time that the text is shown. */
  async create({ role, signature = randomText() }: { role: Role; signature?: string }) {
    // The text itself may be in use elsewhere, so no message has it.
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

  /** One that is revoked keeps its time. */
  async revoke(id: number): Promise<Signature> {
    const sql = this.#sql;
    const [row] = await sql<Signature[]>`
      update signatures set revoked_at = coalesce(revoked_at, now()) where id = ${id}
      returning id, role, created_at as "createdAt", revoked_at as "revokedAt"`;
    if (row === undefined) throw new UsageError(`there is no signature ${id}`);
    return row;
  }

  /** Digests have one length, and every one is compared, so that time tells nothing. */
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
