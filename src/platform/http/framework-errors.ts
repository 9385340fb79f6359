import { ValidationError } from "elysia";

import { AppError } from "../errors.ts";

/** Translates errors of Elysia; returns others unchanged. */
export function toAppError(code: string | number, cause: unknown): unknown {
  if (code === "VALIDATION") return new AppError("invalid", validationMessage(cause), { cause });
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
