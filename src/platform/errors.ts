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
  too_large: 413,
  unsupported_media: 415,
  range_not_satisfiable: 416,
  undecodable: 422,
  upgrade_required: 426,
  internal: 500,
  unavailable: 503,
} as const;

export type ErrorCode = keyof typeof STATUS;

/** What ends a request, with a message meant for the caller. Anything else that is thrown is a fault of ours: 500, logged. */
export class AppError extends Error {
  override readonly name = "AppError";
  readonly code: ErrorCode;
  readonly headers: Record<string, string>;

  constructor(
    code: ErrorCode,
    message: string,
    options: ErrorOptions & { headers?: Record<string, string> } = {},
  ) {
    super(message, options);
    this.code = code;
    this.headers = options.headers ?? {};
  }
}

/** The answer to a client that should send the same bytes again in `retryAfterS` seconds. */
export function unavailable(
  message: string,
  retryAfterS = 2,
  options: ErrorOptions = {},
): AppError {
  return new AppError("unavailable", message, {
    ...options,
    headers: { "retry-after": String(retryAfterS) },
  });
}

/** Bad usage or configuration: the command line prints the message and exits with 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** The error body of the SDK and reading routes. */
export function renderError(error: unknown): Response {
  if (error instanceof AppError)
    return Response.json(
      { error: error.message },
      { status: STATUS[error.code], headers: error.headers },
    );
  return Response.json({ error: "internal error" }, { status: STATUS.internal });
}
