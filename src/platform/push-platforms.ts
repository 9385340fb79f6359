// Numbers as they are on the wire and in the database.
export const DEVICE_PLATFORM = { unknown: 0, android: 1, ios: 2, web: 3 } as const;
export const SEND_PLATFORM = { unknown: 0, fcm: 1, apns: 2 } as const;

/** Returns the push provider of a device, or undefined if nothing can be sent to it. */
export function platformOf({
  sendPlatform,
  devicePlatform,
}: {
  sendPlatform: number;
  devicePlatform: number;
}): "fcm" | "apns" | undefined {
  if (devicePlatform === DEVICE_PLATFORM.unknown) return undefined;
  if (sendPlatform === SEND_PLATFORM.fcm) return "fcm";
  if (sendPlatform !== SEND_PLATFORM.apns) return undefined;
  // Web push goes through FCM only.
  return devicePlatform === DEVICE_PLATFORM.web ? undefined : "apns";
}
