/** Returns when a UUID of version 7 was made, in ms since the epoch: its first 48 bits. */
export function uuidTimeMs(uuid: string): number {
  return Number.parseInt(uuid.slice(0, 8) + uuid.slice(9, 13), 16);
}
