import { SignJWT, errors, jwtVerify } from "jose";

import { AppError } from "../platform/errors.ts";
import { type Caller } from "./caller.ts";
import { type Claim, ClaimFields } from "./schema.ts";

const ALGORITHM = "HS256";
// Keeps other tokens that are signed with the same secret from being accepted here.
const AUDIENCE = "floodgate:presence";

/** Signs and verifies user tokens: JWTs with `sub`, `clientid`, `aud` and `exp`. */
export class UserTokens {
  readonly #keys: Uint8Array[];

  /** The first secret signs, all of them verify. */
  constructor(secrets: readonly string[]) {
    this.#keys = secrets.map((secret) => new TextEncoder().encode(secret));
  }

  /** `expiresAt` is epoch seconds. */
  async sign({ userid, clientid }: Claim, expiresAt: number): Promise<string> {
    const [key] = this.#keys;
    if (key === undefined) throw new Error("a token secret is missing");
    return await new SignJWT({ clientid })
      .setProtectedHeader({ alg: ALGORITHM })
      .setSubject(userid)
      .setAudience(AUDIENCE)
      .setExpirationTime(expiresAt)
      .sign(key);
  }

  /** Returns the caller that the token names. Throws 401. */
  async verify(token: string, nowMs: number): Promise<Caller> {
    for (const key of this.#keys) {
      const caller = await verifyWith(key, token, nowMs);
      if (caller !== undefined) return caller;
    }
    throw new AppError("unauthorized", "wrong token");
  }
}

/** Returns undefined if another key may have signed the token. Throws 401 if it has expired. */
async function verifyWith(
  key: Uint8Array,
  token: string,
  nowMs: number,
): Promise<Caller | undefined> {
  try {
    const { payload } = await jwtVerify(token, key, {
      algorithms: [ALGORITHM],
      audience: AUDIENCE,
      requiredClaims: ["sub", "exp"],
      currentDate: new Date(nowMs),
    });
    const { sub: userid, clientid, exp = 0 } = payload;
    return { ...ClaimFields.read({ userid, clientid }), expiresAt: exp * 1000 };
  } catch (error) {
    if (error instanceof errors.JWTExpired)
      throw new AppError("unauthorized", "the token has expired", { cause: error });
    return undefined;
  }
}
