import { Presets, SingleBar } from "cli-progress";

/**
 * Shows progress on stderr, so that results can be piped: a bar on a terminal, elsewhere a line per
 * measurement.
 */
export class Progress {
  readonly #interactive = process.stderr.isTTY;
  #bar: SingleBar | undefined;
  #label = "";
  #detail = "";
  #startedAtMs = 0;

  start(label: string): void {
    this.#label = label;
    this.#detail = "";
    this.#startedAtMs = performance.now();
    if (!this.#interactive) return;
    this.#bar = new SingleBar(
      { format: "{label} {bar} {percentage}% {detail}", stream: process.stderr, hideCursor: true },
      Presets.shades_classic,
    );
    this.#bar.start(100, 0, { label: label.padEnd(44), detail: "" });
  }

  update(done: number, detail: string): void {
    this.#detail = detail;
    this.#bar?.update(Math.round(Math.min(done, 1) * 100), { detail });
  }

  stop(): void {
    if (this.#bar !== undefined) {
      this.#bar.update(100);
      this.#bar.stop();
      this.#bar = undefined;
      return;
    }
    const seconds = ((performance.now() - this.#startedAtMs) / 1000).toFixed(1);
    this.note(`${this.#label}: ${seconds} s${this.#detail === "" ? "" : `, ${this.#detail}`}`);
  }

  note(line: string): void {
    process.stderr.write(`${line}\n`);
  }
}
