import { type Clock, SYSTEM_CLOCK } from "../platform/clock.ts";
import { allUsable } from "../platform/config/config-problems.ts";
import {
  providerNames,
  type ProviderName,
  type ProviderSettings,
  type PushConfig,
} from "../platform/config/push-config.ts";
import { type Log } from "../platform/logger.ts";
import { openApns } from "./apns.ts";
import { openFcm } from "./fcm.ts";
import { type Provider } from "./provider.ts";
import { PushSender } from "./sender.ts";

type Opener<Settings> = (settings: Settings, clock: Clock, log: Log) => Promise<Provider>;

/** Opens each provider. Openers throw UsageError for settings that are not usable. */
export const OPENERS: { [Name in ProviderName]: Opener<NonNullable<ProviderSettings[Name]>> } = {
  fcm: openFcm,
  apns: openApns,
};

/**
 * Opens a sender for the providers that have settings. Throws one UsageError that names all
 * settings that are not usable.
 */
export async function openSender(config: PushConfig, log: Log): Promise<PushSender> {
  const opened = await allUsable(
    providerNames().map(async (name) => await open(name, config[name], log)),
  );
  return new PushSender({ ...config, providers: Object.assign({}, ...opened) }, { log });
}

async function open<Name extends ProviderName>(
  name: Name,
  settings: ProviderSettings[Name],
  log: Log,
) {
  return settings && { [name]: await OPENERS[name](settings, SYSTEM_CLOCK, log) };
}
