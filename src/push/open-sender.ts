import { type PushConfig } from "../platform/config/config.ts";
import { bothUsable } from "../platform/config/config-problems.ts";
import { type Log } from "../platform/logger.ts";
import { variableText } from "../platform/config/env-file.ts";
import { checkApnsKey, parseServiceAccount } from "./credentials.ts";
import { PushSender } from "./sender.ts";

/** The senders for which credentials are configured. Throws UsageError for what are none. */
export async function openSender(
  { fcm, apns, ...bounds }: PushConfig,
  log: Log,
): Promise<PushSender> {
  const [account, key] = await bothUsable(readAccount(fcm), readApnsKey(apns));
  return new PushSender(
    {
      fcm: fcm && account && { serviceAccount: account, baseUrl: fcm.baseUrl },
      apns: apns && key !== undefined ? { ...apns, key } : undefined,
      ...bounds,
    },
    { log },
  );
}

async function readAccount(fcm: PushConfig["fcm"]) {
  if (fcm === undefined) return undefined;
  return parseServiceAccount(await variableText("FCM_CREDENTIALS", fcm.credentials, /^\s*\{/));
}

async function readApnsKey(apns: PushConfig["apns"]) {
  if (apns === undefined) return undefined;
  const key = await variableText("APNS_KEY", apns.key, /^\s*-----BEGIN/);
  checkApnsKey(key);
  return key;
}
