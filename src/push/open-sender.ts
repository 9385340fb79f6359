import { type PushConfig } from "../platform/config.ts";
import { type Log } from "../platform/log.ts";
import { variableText } from "../platform/variable-text.ts";
import { checkApnsKey, parseServiceAccount } from "./credentials.ts";
import { PushSender } from "./sender.ts";

/** The senders for which credentials are configured. Throws UsageError for what are none. */
export async function openSender(
  { fcm, apns, ...bounds }: PushConfig,
  log: Log,
): Promise<PushSender> {
  const account =
    fcm && parseServiceAccount(await variableText("FCM_CREDENTIALS", fcm.credentials, /^\s*\{/));
  const key = apns && (await variableText("APNS_KEY", apns.key, /^\s*-----BEGIN/));
  if (key !== undefined) checkApnsKey(key);
  return new PushSender(
    {
      fcm: fcm && account && { serviceAccount: account, baseUrl: fcm.baseUrl },
      apns: apns && key !== undefined ? { ...apns, key } : undefined,
      ...bounds,
    },
    { log },
  );
}
