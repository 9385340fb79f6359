import { pino } from "pino";

import { SYSTEM_CLOCK } from "../../src/platform/clock.ts";
import { Apns, type ApnsOptions } from "../../src/push/apns.ts";
import { Fcm, type FcmOptions } from "../../src/push/fcm.ts";
import { type CampaignMessage } from "../../src/push/message.ts";
import { type Outcome } from "../../src/push/outcome.ts";
import { type PushTarget } from "../../src/push/provider.ts";
import { PushSender, type SenderDeps } from "../../src/push/sender.ts";

export const CAMPAIGN: CampaignMessage = {
  uuid: "5f2b1c9e-8a3d-4f60-9b7e-0d1c2e3f4a5b",
  launch: 1,
  title: "Sale",
  body: "Everything must go",
  imageUrl: null,
  iconUrl: null,
  deepLink: null,
};

/** Short delays for tests. */
const QUICK: Pick<SenderDeps, "limits" | "persistence"> = {
  limits: { tickMs: 10, growMs: 20, reconnectMsMin: 5, reconnectMsMax: 50 },
  persistence: {
    backoff: { baseMs: 5, capMs: 40 },
    quotaBackoff: { baseMs: 10, capMs: 40 },
  },
};

/** Sender for tests, which keeps its log lines. */
export class TestSender extends PushSender {
  readonly logged: string[];

  constructor(
    options: { fcm?: FcmOptions; apns?: ApnsOptions; perSecond?: number },
    deps: Partial<SenderDeps> = {},
  ) {
    const logged: string[] = [];
    const log = pino({ level: "trace" }, { write: (line) => logged.push(line) });
    const { fcm, apns, perSecond = 1_000_000 } = options;
    const clock = deps.clock ?? SYSTEM_CLOCK;
    const providers = {
      fcm: fcm && new Fcm(fcm, clock, log),
      apns: apns && new Apns(apns, clock),
    };
    super(
      { concurrency: 2000, perSecond, providers },
      {
        log,
        ...deps,
        limits: { ...QUICK.limits, ...deps.limits },
        persistence: { ...QUICK.persistence, ...deps.persistence },
      },
    );
    this.logged = logged;
  }

  async sendTo(target: PushTarget, campaign: Partial<CampaignMessage> = {}): Promise<Outcome> {
    const message = this.prepare({ ...CAMPAIGN, ...campaign });
    return await this.send(target, message, new AbortController().signal);
  }
}

/** Counts the outcomes of each kind. */
export function tally(outcomes: Outcome[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { kind } of outcomes) counts[kind] = (counts[kind] ?? 0) + 1;
  return counts;
}
