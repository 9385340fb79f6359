const HELP = /^# HELP (?<name>\w+) (?<help>\S.*)$/;
const TYPE = /^# TYPE (?<name>\w+) (?<type>counter|gauge|histogram)$/;
const SAMPLE =
  /^(?<name>[a-zA-Z_]\w*)(?<labels>\{(?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\n"])*",?)+\})? (?<value>-?\d[\d.]*(?:e[+-]?\d+)?|[+-]Inf|Nan)$/;

export type Family = { help: string; type: string; samples: number };

/** Parsed metrics in Prometheus's text format, by series. Throws for a malformed line. */
export class Scrape {
  readonly families = new Map<string, Family>();
  readonly #values = new Map<string, number>();

  constructor(text: string) {
    if (!text.endsWith("\n")) throw new Error("the last line has no end");
    let help = "";
    for (const line of text.split("\n").filter((one) => one !== "")) {
      const found = HELP.exec(line)?.groups;
      if (found !== undefined) {
        if (this.families.has(found["name"] ?? "")) throw new Error(`twice: ${line}`);
        help = found["help"] ?? "";
      } else if (line.startsWith("#")) this.#addFamily(line, help);
      else this.#addSample(line);
    }
  }

  static async of({ url }: { url: string }): Promise<Scrape> {
    // Uses a new connection, because any process that shares the port may answer it.
    const answer = await fetch(`${url}/metrics`, { keepalive: false });
    const type = answer.headers.get("content-type") ?? "";
    if (answer.status !== 200 || !type.startsWith("text/plain; version=0.0.4"))
      throw new Error(`/metrics answered ${answer.status} ${type}`);
    return new Scrape(await answer.text());
  }

  get series(): string[] {
    return [...this.#values.keys()];
  }

  /** Returns the value of a series; NaN if it is missing. */
  value(series: string): number {
    return this.#values.get(series) ?? Number.NaN;
  }

  /** Sums a metric over all labels. */
  sum(name: string): number {
    const values = [...this.#values].filter(([series]) => series.split("{")[0] === name);
    return values.reduce((total, [, value]) => total + value, 0);
  }

  #addFamily(line: string, help: string): void {
    const found = TYPE.exec(line)?.groups;
    if (found === undefined) throw new Error(`not of the format: ${line}`);
    this.families.set(found["name"] ?? "", { help, type: found["type"] ?? "", samples: 0 });
  }

  #addSample(line: string): void {
    const found = SAMPLE.exec(line)?.groups;
    const name = found?.["name"] ?? "";
    const family =
      this.families.get(name) ?? this.families.get(name.replace(/_(?:bucket|sum|count)$/, ""));
    const series = line.slice(0, line.lastIndexOf(" "));
    if (found === undefined || family === undefined || this.#values.has(series))
      throw new Error(`not of the format: ${line}`);
    family.samples++;
    this.#values.set(series, Number(found["value"]));
  }
}
