import { type CampaignMessage } from "../push/message.ts";

/**
 * Returns a UUID (version 8) that is the same each time this launch is sent to this device, for
 * deduplication.
 */
export function messageId(
  { uuid, launch }: Pick<CampaignMessage, "uuid" | "launch">,
  deviceId: number,
): string {
  const nth = (launch % 0x1000).toString(16).padStart(3, "0");
  return `${uuid.slice(0, 13)}-8${nth}-8${uuid.slice(20, 23)}-${deviceId.toString(16).padStart(12, "0")}`;
}
