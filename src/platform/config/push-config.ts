import { Type } from "typebox";

import { DEVICE_PLATFORM } from "../device-platforms.ts";

/** Variables of the push providers, and the limits that they share. */
export const PUSH_VARIABLES = {
  FCM_CREDENTIALS: Type.Optional(Type.String({ minLength: 1 })),
  FCM_BASE_URL: Type.String({ pattern: "^https?://", default: "https://fcm.googleapis.com" }),
  APNS_KEY: Type.Optional(Type.String({ minLength: 1 })),
  APNS_KEY_ID: Type.Optional(Type.String({ minLength: 1 })),
  APNS_TEAM_ID: Type.Optional(Type.String({ minLength: 1 })),
  APNS_TOPIC: Type.Optional(Type.String({ minLength: 1 })),
  APNS_SANDBOX: Type.Boolean({ default: false }),
  APNS_BASE_URL: Type.Optional(Type.String({ pattern: "^https?://" })),
  PUSH_CONCURRENCY: Type.Integer({ minimum: 1, maximum: 20_000, default: 3000 }),
  PUSH_RATE: Type.Integer({ minimum: 1, maximum: 1_000_000, default: 10_000 }),
};
const Variables = Type.Object(PUSH_VARIABLES);
type Values = Type.Static<typeof Variables>;

type ProviderEntry<Settings> = {
  /** Name in error texts. */
  title: string;
  /** Number of the provider in `send_platform`; the table's check must allow it. */
  sendPlatform: number;
  /** Device platforms that the provider delivers to. */
  devicePlatforms: number[];
  /** Variables that turn the provider on, all of them together. */
  required: string[];
  /** Returns what the provider is opened with, or undefined while it is off. */
  settings: (values: Values) => Settings;
};

const { android, ios, web } = DEVICE_PLATFORM;

/** Push providers by the name that metrics and log lines show. CONTRIBUTING.md says how to add one. */
export const PROVIDERS: {
  fcm: ProviderEntry<ReturnType<typeof fcmSettings>>;
  apns: ProviderEntry<ReturnType<typeof apnsSettings>>;
} = {
  fcm: {
    title: "FCM",
    sendPlatform: 1,
    devicePlatforms: [android, ios, web],
    required: ["FCM_CREDENTIALS"],
    settings: fcmSettings,
  },
  apns: {
    title: "APNs",
    sendPlatform: 2,
    // Browsers are reached through FCM alone.
    devicePlatforms: [android, ios],
    required: ["APNS_KEY", "APNS_KEY_ID", "APNS_TEAM_ID", "APNS_TOPIC"],
    settings: apnsSettings,
  },
};

export type ProviderName = keyof typeof PROVIDERS;
/** Settings by provider; `credentials` and `key` are paths or the texts themselves. */
export type ProviderSettings = {
  [Name in ProviderName]: ReturnType<(typeof PROVIDERS)[Name]["settings"]>;
};
/** `concurrency` and `perSecond` bound the sends to all providers together. */
export type PushConfig = ProviderSettings & { concurrency: number; perSecond: number };

function fcmSettings({ FCM_CREDENTIALS: credentials, FCM_BASE_URL: baseUrl }: Values) {
  return credentials === undefined ? undefined : { credentials, baseUrl };
}

function apnsSettings(values: Values) {
  const { APNS_KEY: key, APNS_KEY_ID: keyId, APNS_TEAM_ID: teamId, APNS_TOPIC: topic } = values;
  const host = values.APNS_SANDBOX ? "api.sandbox.push.apple.com" : "api.push.apple.com";
  const baseUrl = values.APNS_BASE_URL ?? `https://${host}`;
  return key && keyId && teamId && topic ? { key, keyId, teamId, topic, baseUrl } : undefined;
}

export function pushConfig(values: Values): PushConfig {
  const bounds = { concurrency: values.PUSH_CONCURRENCY, perSecond: values.PUSH_RATE };
  return Object.assign(bounds, ...entries((name) => PROVIDERS[name].settings(values)));
}

/** Lists variables that are missing beside others of the same provider. */
export function pushProblems(env: Record<string, string | undefined>): string[] {
  return providerNames().flatMap((name) => {
    const { required } = PROVIDERS[name];
    const missing = required.filter((variable) => !env[variable]);
    return missing.length > 0 && missing.length < required.length
      ? [
          `${missing.join(", ")} must be set together with the other ${name.toUpperCase()} variables`,
        ]
      : [];
  });
}

export function providerNames(): ProviderName[] {
  return Object.keys(PROVIDERS).filter(isProviderName);
}

function isProviderName(name: string): name is ProviderName {
  return name in PROVIDERS;
}

/** Makes a record with a value for each provider. */
export function perProvider<Made>(make: (name: ProviderName) => Made): Record<ProviderName, Made> {
  return Object.assign({}, ...entries(make));
}

function entries<Made>(make: (name: ProviderName) => Made): Record<string, Made>[] {
  return providerNames().map((name) => ({ [name]: make(name) }));
}

/** Returns the provider that a device is sent to through, or undefined if none can reach it. */
export function providerOf(device: {
  sendPlatform: number;
  devicePlatform: number;
}): ProviderName | undefined {
  return providerNames().find((name) => {
    const { sendPlatform, devicePlatforms } = PROVIDERS[name];
    return sendPlatform === device.sendPlatform && devicePlatforms.includes(device.devicePlatform);
  });
}
