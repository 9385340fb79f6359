import models from "@naverpay/device-info/ios";

export type DeviceType = "mobile" | "tablet" | "desktop" | "other";

/** A device as the SDK describes it at start; on iOS `userDevice` is Apple's model code. */
export type SentDevice = {
  userDevice: string | undefined;
  userDeviceType: string | number | undefined;
};

const NAMES = new Map(Object.entries(models));

/** Apple's user interface idioms, which the iOS start sends; TV (2) and CarPlay (3) are "other". */
const IDIOMS = new Map<string, DeviceType>([
  ["0", "mobile"],
  ["1", "tablet"],
  ["5", "desktop"],
]);

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

function isDeviceType(value: string | number | undefined): value is DeviceType {
  return value === "mobile" || value === "tablet" || value === "desktop" || value === "other";
}
