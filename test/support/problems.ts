import { expect } from "bun:test";

import { readConfig } from "../../src/platform/config/config.ts";
import { UsageError } from "../../src/platform/errors.ts";

/** Returns the problems listed in the error message. */
export function problemsOf(env: Record<string, string>): string[] {
  try {
    readConfig(env);
    return [];
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    expect(error.message).toStartWith("bad configuration: ");
    return error.message.slice("bad configuration: ".length).split("; ");
  }
}
