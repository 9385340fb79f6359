import { AppError } from "../platform/errors.ts";
import { Fields } from "../platform/fields.ts";

const EXTERNAL_ID_MAX = 255;
const PUSH_TOKEN_MAX = 4096;

export type DeviceInput = {
  externalId: string;
  pushToken: string;
  sendPlatform: number;
  devicePlatform: number;
};

/** A device from outside, but for its properties. Throws AppError that names what is wrong. */
export function parseDevice(fields: Fields): DeviceInput {
  const externalId = fields.text("external_id", 1, EXTERNAL_ID_MAX);
  // Clients and proxies take such a segment out of a path, so that nobody could ask for the device.
  if (externalId === "." || externalId === "..")
    throw new AppError("invalid", "external_id must not be . or ..");
  return {
    externalId,
    pushToken: fields.text("push_token", 0, PUSH_TOKEN_MAX),
    sendPlatform: fields.integerOr("send_platform", 0, 2, 0),
    devicePlatform: fields.integerOr("device_platform", 0, 3, 0),
  };
}
