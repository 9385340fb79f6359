import { codeOf } from "../errors.ts";

const AWAY = /^(?:CONNECT|ECONN|ETIMEDOUT|EPIPE|ENOTFOUND|EHOST|ENET|EAI_|08|25P0[3-5]|53|57P|58)/;
// Code of a write on a read-only server: a replica, or a demoted primary.
const READ_ONLY = "25006";
// Codes of a refused user or password, a missing or closed database, and missing privileges.
const UNWANTED = /^(?:28|3D000|42501|55000)/;
// Codes of a statement that was canceled, or rolled back because of a conflict with another.
const GIVEN_UP = /^(?:40|57014)/;

/** Returns whether the database cannot be reached, accepts no more connections, or refuses them. */
export function isAway(error: unknown): boolean {
  return AWAY.test(codeOf(error)) || isFatal(error) || codeOf(error) === READ_ONLY;
}

/** Returns whether this server refuses the work, however often it is tried. */
export function isRefusal(error: unknown): boolean {
  const code = codeOf(error);
  return code === READ_ONLY || (isFatal(error) && UNWANTED.test(code));
}

/** Returns whether the server closed the connection itself (shutdown or termination). */
export function isFarewell(error: unknown): boolean {
  return codeOf(error).startsWith("57P");
}

/**
 * Returns whether the database is unavailable or overloaded: the statement itself is fine, and may
 * succeed later.
 */
export function isOutage(error: unknown): boolean {
  return isAway(error) || GIVEN_UP.test(codeOf(error));
}

/** Returns whether the error ended a connection or prevented it. */
function isFatal(error: unknown): boolean {
  return error instanceof Error && "severity" in error && error.severity === "FATAL";
}
