export const STATUS = {
  invalid: 400,
  unauthorized: 401,
  forbidden: 403,
  not_found: 404,
  no_route: 404,
  method_not_allowed: 405,
  not_acceptable: 406,
  timeout: 408,
  conflict: 409,
  gone: 410,
  precondition_failed: 412,
  too_large: 413,
  unsupported_media: 415,
  unsupported_coding: 415,
  range_not_satisfiable: 416,
  undecodable: 422,
  upgrade_required: 426,
  rate_limited: 429,
  internal: 500,
  unavailable: 503,
} as const;

export type ErrorCode = keyof typeof STATUS;

/** Cause of an error in metrics, for causes that share a code but matter to operators. */
type Reason = "overload" | "store" | "database" | "framing" | "lost";

type AppErrorOptions = ErrorOptions & { headers?: Record<string, string>; reason?: Reason };

/**
 * Ends a request with a status and a message meant for the caller. Any other error is a bug: it is
 * logged, and answered with 500.
 */
export class AppError extends Error {
  override readonly name = "AppError";
  readonly code: ErrorCode;
  readonly headers: Record<string, string>;
  /** Label under which metrics count the error. */
  readonly reason: Reason | ErrorCode;

  constructor(code: ErrorCode, message: string, options: AppErrorOptions = {}) {
    super(message, options);
    this.code = code;
    this.headers = options.headers ?? {};
    this.reason = options.reason ?? code;
  }
}

/** Returns a 503 that asks the client to send the same bytes again in `retryAfterS` seconds. */
export function unavailable(
  message: string,
  retryAfterS = 2,
  options: ErrorOptions & { reason?: Reason } = {},
): AppError {
  return new AppError("unavailable", message, {
    ...options,
    headers: { "retry-after": String(retryAfterS) },
  });
}

/** Returns a 429 for a client over a limit; nothing of its request's body was read. */
export function limited(message: string, retryAfterS: number): AppError {
  return new AppError("rate_limited", message, { headers: { "retry-after": String(retryAfterS) } });
}

/** Returns the code of an error of the system, a driver or a library, such as ENOENT; "" if it has none. */
export function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}

/** Thrown for bad usage or configuration: the command line prints the message and exits with 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** Exit code of a program that may succeed the next time (`EX_TEMPFAIL` of sysexits.h). */
export const EXIT_AWAY = 75;

/** Thrown if a command needs a service that is unavailable: the program exits with `EXIT_AWAY`. */
export class DependencyAway extends Error {
  override readonly name = "DependencyAway";
}

/** Renders an error as the SDK and reading routes send it: JSON with a message. */
export function renderError(error: unknown): Response {
  if (error instanceof AppError)
    return Response.json(
      { error: error.message },
      { status: STATUS[error.code], headers: error.headers },
    );
  return Response.json({ error: "internal error" }, { status: STATUS.internal });
}
