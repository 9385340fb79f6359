import { type Logger, pino } from "pino";

/** A log that collects its lines. */
export class LogLines {
  readonly log: Logger = pino(
    { level: "warn", base: null },
    { write: (line) => void this.lines.push(line) },
  );
  readonly lines: string[] = [];

  /** Returns the lines that contain the text. */
  with(text: string): string[] {
    return this.lines.filter((line) => line.includes(text));
  }
}
