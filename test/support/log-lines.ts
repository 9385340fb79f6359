import { type Logger, pino } from "pino";

/** A log that a test can read. */
export class LogLines {
  readonly log: Logger = pino(
    { level: "warn", base: null },
    { write: (line) => void this.lines.push(line) },
  );
  readonly lines: string[] = [];

  /** The lines that hold the text. */
  with(text: string): string[] {
    return this.lines.filter((line) => line.includes(text));
  }
}
