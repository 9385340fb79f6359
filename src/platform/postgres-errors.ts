const AWAY = /^(?:CONNECT|ECONN|ETIMEDOUT|EPIPE|ENOTFOUND|EHOST|ENET|EAI_|08|25P0[3-5]|53|57P|58)/;
/** The server is there, but refuses the work: it is a replica or was demoted, the password was changed, the database dropped. */
const REFUSED = /^(?:25006|28000|28P01|3D000)$/;
// A statement that took too long, or was given up for another one.
const GIVEN_UP = /^(?:40|57014)/;

/** Whether the error says that the database cannot be reached, takes no more connections or refuses them. */
export function isAway(error: unknown): boolean {
  return AWAY.test(codeOf(error)) || isRefusal(error);
}

/** Whether the error says that this server takes nothing of what is to be written, however often it is tried. */
export function isRefusal(error: unknown): boolean {
  return REFUSED.test(codeOf(error));
}

/** Whether a server ends the connection of its own will. */
export function isFarewell(error: unknown): boolean {
  return codeOf(error).startsWith("57P");
}

/** Whether the error says that the database is away or overloaded, not that the statement is wrong: it may go well the next time. */
export function isOutage(error: unknown): boolean {
  return isAway(error) || GIVEN_UP.test(codeOf(error));
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}
