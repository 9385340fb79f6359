import { pino } from "pino";

import {
  type Campaign,
  type Outcome,
  PushSender,
  type PushConfig,
  type PushSenderDeps,
  type PushTarget,
} from "../../src/push/sender.ts";

export const CAMPAIGN: Campaign = {
  uuid: "5f2b1c9e-8a3d-4f60-9b7e-0d1c2e3f4a5b",
  launch: 1,
  title: "Sale",
  body: "Everything must go",
  imageUrl: null,
  iconUrl: null,
  deepLink: null,
};

/** Waits for nothing longer than a test should. */
const QUICK: Pick<PushSenderDeps, "limits" | "persistence"> = {
  limits: { tickMs: 10, growMs: 20, reconnectMsMin: 5, reconnectMsMax: 50 },
  persistence: {
    backoff: { baseMs: 5, capMs: 40 },
    quotaBackoff: { baseMs: 10, capMs: 40 },
  },
};

/** A sender for tests; what it logs is kept. */
export class TestSender extends PushSender {
  readonly logged: string[];

  constructor(
    config: Omit<PushConfig, "concurrency" | "perSecond"> & { perSecond?: number },
    deps: Partial<PushSenderDeps> = {},
  ) {
    const logged: string[] = [];
    const log = pino({ level: "trace" }, { write: (line) => logged.push(line) });
    super(
      { concurrency: 2000, perSecond: 1_000_000, ...config },
      {
        log,
        ...deps,
        limits: { ...QUICK.limits, ...deps.limits },
        persistence: { ...QUICK.persistence, ...deps.persistence },
      },
    );
    this.logged = logged;
  }

  async sendTo(target: PushTarget, campaign: Partial<Campaign> = {}): Promise<Outcome> {
    const message = this.prepare({ ...CAMPAIGN, ...campaign });
    return await this.send(target, message, new AbortController().signal);
  }
}

/** How many there are of each kind. */
export function tally(outcomes: Outcome[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { kind } of outcomes) counts[kind] = (counts[kind] ?? 0) + 1;
  return counts;
}
