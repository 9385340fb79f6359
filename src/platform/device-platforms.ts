/** Operating systems of devices, by their number on the wire and in the database. */
export const DEVICE_PLATFORM = { unknown: 0, android: 1, ios: 2, web: 3 } as const;
