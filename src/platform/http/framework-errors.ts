import { ValidationError } from "elysia";

import { isOutage } from "../database/postgres-errors.ts";
import { AppError, unavailable } from "../errors.ts";

/** Translates errors of Elysia and of an unavailable database; returns others unchanged. */
export function toAppError(code: string | number, cause: unknown): unknown {
  if (code === "VALIDATION") return new AppError("invalid", validationMessage(cause), { cause });
  if (isOutage(cause))
    return unavailable("the database is away, send it again", 2, { cause, reason: "database" });
  return code === "NOT_FOUND" ? new AppError("no_route", "no such route") : cause;
}

function validationMessage(error: unknown): string {
  if (!(error instanceof ValidationError)) return "the request is malformed";
  if (typeof error.customError === "string") return error.customError;
  const [first] = error.all;
  return first === undefined || !("path" in first)
    ? "the request is malformed"
    : `${first.path.slice(1)}: ${first.message}`;
}
