import { expect } from "bun:test";

import { readConfig } from "../../src/platform/config.ts";
import { UsageError } from "../../src/platform/errors.ts";

/** The problems that the message lists. */
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
