import { expect, test } from "bun:test";

import { DeviceSends } from "../../src/campaigns/device-sends.ts";
import { type Ended } from "../../src/campaigns/outcomes.ts";
import { Semaphore } from "../../src/campaigns/semaphore.ts";
import { perProvider } from "../../src/platform/config/push-config.ts";
import { type Outcome } from "../../src/push/outcome.ts";

const MESSAGE = {
  uuid: crypto.randomUUID(),
  launch: 1,
  title: "t",
  body: "b",
  imageUrl: null,
  iconUrl: null,
  deepLink: null,
};

test("all that wait for the sends under way go on once they have ended", async () => {
  const answer = Promise.withResolvers<Outcome>();
  const sender = {
    canSend: perProvider(() => true),
    concurrency: 2,
    prepare: () => undefined,
    send: async () => await answer.promise,
  };
  const ended: Ended[] = [];
  const run = new AbortController();
  const sends = new DeviceSends(sender, MESSAGE, run, (one) => ended.push(one));
  const window = new Semaphore(2);
  for (const id of [1, 2]) {
    void window.acquire();
    sends.begin(
      { id, token: `t${id}`, provider: "fcm", devicePlatform: 1, tokenInvalid: false },
      window,
    );
  }
  const waits = Promise.all([sends.idle(), sends.idle(), sends.idle()]);
  answer.resolve({ kind: "sent" });
  await waits;
  expect(ended.map(({ device }) => device.id)).toEqual([1, 2]);
  await sends.idle();
});
