import { AppError } from "../platform/errors.ts";
import { type SessionToken, type Tokens } from "./token.ts";

const LATE_MAX_MS = 30 * 86_400_000;

/** Expired tokens that a route accepts: of the last 30 seconds, or of the last 30 days. */
export type Grace = "none" | "just_expired" | "late";

/**
 * Returns the session token of a data request. Throws 401 with the texts that clients know, also for
 * an expired token unless there is grace for it.
 */
export function bearer(
  request: Request,
  tokens: Tokens,
  grace: Grace = "none",
  now = Date.now(),
): SessionToken {
  const header = request.headers.get("authorization");
  if (header === null || !header.startsWith("Bearer "))
    throw new AppError("unauthorized", "missing token");
  const text = header.slice("Bearer ".length);
  if (text.split(".").length !== 4) throw new AppError("unauthorized", "wrong token format");
  const token = tokens.verify(text, now);
  if (token === undefined) throw new AppError("unauthorized", "wrong token sign");
  if (token.kind === "valid") return token;
  if (grace === "just_expired" && token.kind === "just_expired") return token;
  if (grace === "late" && token.expiresAt > now - LATE_MAX_MS) return token;
  throw new AppError(
    "unauthorized",
    token.kind === "just_expired" ? "token just expired" : "token expired",
  );
}
