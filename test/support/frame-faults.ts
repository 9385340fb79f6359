import { FrameError } from "../../src/ingest/frames.ts";

/** Returns what the work returns, or the reason of the FrameError that it throws. */
export function resultOrFault<Result>(run: () => Result): Result | string {
  try {
    return run();
  } catch (error) {
    if (error instanceof FrameError) return error.reason;
    throw error;
  }
}
