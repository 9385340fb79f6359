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
  return {
    externalId: fields.text("external_id", 1, EXTERNAL_ID_MAX),
    pushToken: fields.text("push_token", 0, PUSH_TOKEN_MAX),
    sendPlatform: fields.integerOr("send_platform", 0, 2, 0),
    devicePlatform: fields.integerOr("device_platform", 0, 3, 0),
  };
}
