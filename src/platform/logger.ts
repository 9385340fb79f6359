import { pino } from "pino";

import { STDERR } from "./text-output.ts";

export type Log = pino.Logger;

/** Opens a log of JSON lines on stderr; stdout is for the output of commands. */
export function openLog(level: string): Log {
  return pino({ level, base: null }, STDERR);
}
