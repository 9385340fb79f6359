/** Statuses of a campaign, by their number on the wire and in the database. */
export const STATUS = { draft: 0, launched: 1, sent: 2, error: 3, deleted: 4, queued: 5 } as const;
export type Status = (typeof STATUS)[keyof typeof STATUS];

/** Events of a device in a campaign, by their number in the database: it was targeted, and one outcome. */
export const DEVICE_EVENT = {
  targeted: 0,
  sent: 1,
  failed: 2,
  invalid_token: 3,
  undeliverable: 4,
} as const;
export type DeviceEventName = keyof typeof DEVICE_EVENT;

const EVENT_NAMES = new Map<number, string>(
  Object.entries(DEVICE_EVENT).map(([name, event]) => [event, name]),
);

export function eventName(event: number): string {
  return EVENT_NAMES.get(event) ?? "unknown";
}
