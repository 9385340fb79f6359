import { PROVIDERS } from "../platform/config/push-config.ts";
import { DEVICE_PLATFORM } from "../platform/device-platforms.ts";
import { AppError } from "../platform/errors.ts";
import { Fields } from "../platform/fields.ts";

const EXTERNAL_ID_MAX = 255;
const PUSH_TOKEN_MAX = 4096;
const DEVICE_PLATFORM_MAX = Math.max(...Object.values(DEVICE_PLATFORM));

export type DeviceInput = {
  externalId: string;
  pushToken: string;
  sendPlatform: number;
  devicePlatform: number;
};

/** Parses a device without its properties. Throws an AppError that names the field at fault. */
export function parseDevice(fields: Fields): DeviceInput {
  const externalId = fields.text("external_id", 1, EXTERNAL_ID_MAX);
  // Clients and proxies drop such a segment from a path, which would make the device unreachable.
  if (externalId === "." || externalId === "..")
    throw new AppError("invalid", "external_id must not be . or ..");
  return {
    externalId,
    pushToken: fields.text("push_token", 0, PUSH_TOKEN_MAX),
    sendPlatform: fields.integerOr("send_platform", 0, sendPlatformMax(), 0),
    devicePlatform: fields.integerOr("device_platform", 0, DEVICE_PLATFORM_MAX, 0),
  };
}

function sendPlatformMax(): number {
  return Math.max(...Object.values(PROVIDERS).map(({ sendPlatform }) => sendPlatform));
}
