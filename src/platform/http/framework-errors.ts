import { ValidationError } from "elysia";

import { AppError } from "../errors.ts";
import { problemAt } from "../input.ts";

/** Translates errors of Elysia; returns others unchanged. */
export function toAppError(code: string | number, cause: unknown): unknown {
  if (code === "VALIDATION") return new AppError("invalid", validationMessage(cause), { cause });
  return code === "NOT_FOUND" ? new AppError("no_route", "no such route") : cause;
}

function validationMessage(error: unknown): string {
  const found = error instanceof ValidationError ? error.valueError : undefined;
  return found === undefined ? "the request is malformed" : problemAt(found.path, found);
}
