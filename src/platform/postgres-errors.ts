const AWAY = /^(?:CONNECT|ECONN|ETIMEDOUT|EPIPE|ENOTFOUND|EHOST|ENET|EAI_|08|25P0[3-5]|53|57P|58)/;
// The server is a replica or was demoted.
const READ_ONLY = "25006";
// Who asks, the password or the database is not, or no longer, what it takes connections for.
const UNWANTED = /^(?:28|3D000|42501|55000)/;
// A statement that took too long, or was given up for another one.
const GIVEN_UP = /^(?:40|57014)/;

/** Whether the error says that the database cannot be reached, takes no more connections or refuses them. */
export function isAway(error: unknown): boolean {
  return AWAY.test(codeOf(error)) || isFatal(error) || codeOf(error) === READ_ONLY;
}

/** Whether the error says that this server takes nothing of what is to be written, however often it is tried. */
export function isRefusal(error: unknown): boolean {
  const code = codeOf(error);
  return code === READ_ONLY || (isFatal(error) && UNWANTED.test(code));
}

/** Whether a server ends the connection of its own will. */
export function isFarewell(error: unknown): boolean {
  return codeOf(error).startsWith("57P");
}

/** Whether the error says that the database is away or overloaded, not that the statement is wrong: it may go well the next time. */
export function isOutage(error: unknown): boolean {
  return isAway(error) || GIVEN_UP.test(codeOf(error));
}

/** Whether it ended a connection, or kept it from being made. */
function isFatal(error: unknown): boolean {
  return error instanceof Error && "severity" in error && error.severity === "FATAL";
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}
