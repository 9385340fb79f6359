import { readFile } from "node:fs/promises";

import { type PushConfig } from "../platform/config.ts";
import { UsageError } from "../platform/errors.ts";
import { type Log } from "../platform/log.ts";
import { checkApnsKey, parseServiceAccount } from "./credentials.ts";
import { PushSender } from "./sender.ts";

/** The senders for which credentials are configured. Throws UsageError for what are none. */
export async function openSender(
  { fcm, apns, concurrency }: PushConfig,
  log: Log,
): Promise<PushSender> {
  const account = fcm && parseServiceAccount(await textOf("FCM_CREDENTIALS", fcm.credentials, "{"));
  const key = apns && (await textOf("APNS_KEY", apns.key, "-----BEGIN"));
  if (key !== undefined) checkApnsKey(key);
  return new PushSender(
    {
      fcm: fcm && account && { serviceAccount: account, baseUrl: fcm.baseUrl },
      apns: apns && key !== undefined ? { ...apns, key } : undefined,
      concurrency,
    },
    { log },
  );
}

/** What the variable holds, or the file that it names. */
async function textOf(name: string, value: string, begin: string): Promise<string> {
  if (value.trimStart().startsWith(begin)) return value;
  try {
    return await readFile(value, "utf8");
  } catch (cause) {
    throw new UsageError(`${name} names a file that cannot be read`, { cause });
  }
}
