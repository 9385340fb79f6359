import models from "@naverpay/device-info/ios";

import { type Project, type ProjectPlatform } from "../projects/service.ts";
import { type StartRequest } from "./schema.ts";
import { type UserAgent } from "./user-agent.ts";

export type DeviceType = "mobile" | "tablet" | "desktop" | "other";

/** A device as the SDK describes it at start; on iOS `userDevice` is Apple's model code. */
export type SentDevice = Pick<StartRequest, "userDevice" | "userDeviceType">;

/** Columns of a session that describe its device. */
export type SessionDevice = {
  platform: ProjectPlatform;
  user_os: string;
  user_os_version: string | null;
  user_browser: string;
  user_browser_version: string;
  user_device: string | null;
  user_device_type: DeviceType;
};

const NAMES = new Map(Object.entries(models));

/** Apple's user interface idioms, which the iOS start sends; TV (2) and CarPlay (3) are "other". */
const IDIOMS = new Map<string, DeviceType>([
  ["0", "mobile"],
  ["1", "tablet"],
  ["5", "desktop"],
]);

/** Describes the device of a mobile SDK, which names it itself. */
export function mobileDevice(request: StartRequest, agent: UserAgent): SessionDevice {
  const isIos = (request.platform ?? "ios") === "ios";
  const platform = isIos ? "ios" : "android";
  return {
    platform,
    user_os: isIos ? "IOS" : "Android",
    user_os_version: request.userOSVersion ?? null,
    user_browser: agent.browser,
    user_browser_version: agent.browserVersion,
    user_device: (isIos ? iosDeviceName(request.userDevice) : request.userDevice) ?? null,
    user_device_type: deviceType(platform, request),
  };
}

/** Describes the device of a web page by its user agent, unless the SDK names it. */
export function webDevice(
  request: StartRequest,
  agent: UserAgent,
  { platform }: Project,
): SessionDevice {
  return {
    platform,
    user_os: request.userOS ?? agent.os,
    user_os_version: request.userOSVersion ?? agent.osVersion,
    user_browser: request.userBrowser ?? agent.browser,
    user_browser_version: request.userBrowserVersion ?? agent.browserVersion,
    user_device: agent.device,
    user_device_type: agent.deviceType,
  };
}

/**
 * Returns the marketing name of a model code ("iPhone15,2" is an iPhone 14 Pro), or the code itself
 * if the list lacks it.
 */
export function iosDeviceName(model: string | undefined): string | undefined {
  return model && (NAMES.get(model) ?? model);
}

/**
 * Returns the type of a device. iOS: by the model code, or by the idiom if the code is not a
 * model's, such as a simulator's "arm64". Android: as sent, or "other" if that is not a type.
 */
export function deviceType(platform: "ios" | "android", sent: SentDevice): DeviceType {
  const { userDevice = "", userDeviceType } = sent;
  if (platform === "android") return isDeviceType(userDeviceType) ? userDeviceType : "other";
  if (userDevice.includes("iPhone")) return "mobile";
  if (userDevice.includes("iPad")) return "tablet";
  return IDIOMS.get(String(userDeviceType)) ?? "other";
}

export function isDeviceType(value: string | number | undefined): value is DeviceType {
  return value === "mobile" || value === "tablet" || value === "desktop" || value === "other";
}
