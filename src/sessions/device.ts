import models from "@naverpay/device-info/ios";

export type DeviceType = "mobile" | "tablet" | "desktop" | "other";

/** What an SDK tells of its device at start; on iOS `userDevice` is Apple's model code. */
export type SentDevice = {
  userDevice: string | undefined;
  userDeviceType: string | number | undefined;
};

const NAMES = new Map(Object.entries(models));

/** Apple's user interface idioms, which the documented iOS start sends; TV (2) and CarPlay (3) are "other". */
const IDIOMS = new Map<string, DeviceType>([
  ["0", "mobile"],
  ["1", "tablet"],
  ["5", "desktop"],
]);

/** The marketing name of a model code ("iPhone15,2" is an iPhone 14 Pro), or the code where the list lacks it. */
export function iosDeviceName(model: string | undefined): string | undefined {
  return model && (NAMES.get(model) ?? model);
}

/** iOS: by the model code, and by idiom where that says nothing, as a simulator's "arm64". Android: as sent, if a type at all. */
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
