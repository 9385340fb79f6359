import { pino } from "pino";

import { STDERR } from "./text-output.ts";

export type Log = pino.Logger;

/** JSON lines on stderr, so that a command's own output on stdout stays clean. */
export function openLog(level: string): Log {
  return pino({ level, base: null }, STDERR);
}
