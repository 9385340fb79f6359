export const INVISIBLE = "3";
/** Most devices of one user, so that clients that invent client ids cannot fill the memory. */
export const DEVICES_MAX = 100;

/** A device's ping or bye, as it is sent between processes; `at` is epoch ms. */
export type Ping = {
  userid: string;
  clientid: string;
  at: number;
  /** null if the device said bye */
  status: string | null;
};

/** State of one device of a user. Times are epoch ms, 0 = never. */
export type Device = {
  clientid: string;
  /** time of the newest ping or bye */
  changedAt: number;
  gone: boolean;
  pingAt: number;
  status: string;
  /** time of the newest ping that was not invisible */
  seenAt: number;
  seenStatus: string;
};

/** A user's state as watchers see it; `at` is epoch ms. */
export type View = {
  at: number;
  status: string;
  online: boolean;
  /** device that the state is taken from */
  clientid: string;
};

/** Returns the state of a device of which only this ping is known. */
export function deviceOf({ clientid, at, status }: Ping): Device {
  const isSeen = status !== null && status !== INVISIBLE;
  return {
    clientid,
    changedAt: at,
    gone: status === null,
    pingAt: status === null ? 0 : at,
    status: status ?? "",
    seenAt: isSeen ? at : 0,
    seenStatus: isSeen ? status : "",
  };
}

/**
 * Merges each part of `news` that is newer, so that news may arrive twice and in any order. Returns
 * whether anything changed.
 */
export function merge(device: Device, news: Device): boolean {
  let changed = false;
  if (news.changedAt > device.changedAt) {
    device.changedAt = news.changedAt;
    device.gone = news.gone;
    changed = true;
  }
  if (news.pingAt > device.pingAt) {
    device.pingAt = news.pingAt;
    device.status = news.status;
    changed = true;
  }
  if (news.seenAt > device.seenAt) {
    device.seenAt = news.seenAt;
    device.seenStatus = news.seenStatus;
    changed = true;
  }
  return changed;
}

/** Merges into a list of distinct devices; a full one loses the device that changed longest ago. */
export function mergeInto(devices: Device[], news: Device, max: number): void {
  const known = devices.find(({ clientid }) => clientid === news.clientid);
  if (known !== undefined) merge(known, news);
  else makeRoom(devices, max).push({ ...news });
}

/** Removes the device that changed longest ago if the list is full. */
export function makeRoom<D extends Device>(devices: D[], max: number): D[] {
  if (devices.length >= max) {
    const oldest = devices.reduce((a, b) => (b.changedAt < a.changedAt ? b : a));
    devices.splice(devices.indexOf(oldest), 1);
  }
  return devices;
}

/**
 * Returns what everybody sees: invisible devices count as offline. Undefined for a user who was
 * never visible.
 */
export function publicView<D extends Device>(
  devices: Iterable<D>,
  isAlive: (device: D) => boolean,
): View | undefined {
  let seen: D | undefined;
  let best: D | undefined;
  for (const device of devices) {
    if (device.seenAt > (seen?.seenAt ?? 0)) seen = device;
    if (device.status === INVISIBLE || device.gone || !isAlive(device)) continue;
    if (best === undefined || outranks(device, best)) best = device;
  }
  if (seen === undefined) return undefined;
  return {
    at: seen.seenAt,
    status: best?.status ?? seen.seenStatus,
    online: best !== undefined,
    clientid: (best ?? seen).clientid,
  };
}

/** Returns what the user's own devices see. Undefined for a user who never pinged. */
export function ownView<D extends Device>(
  devices: Iterable<D>,
  isAlive: (device: D) => boolean,
): View | undefined {
  let newest: D | undefined;
  let best: D | undefined;
  for (const device of devices) {
    if (device.pingAt > (newest?.pingAt ?? 0)) newest = device;
    if (device.gone || !isAlive(device)) continue;
    if (best === undefined || outranks(device, best)) best = device;
  }
  if (newest === undefined) return undefined;
  const { status, clientid } = best ?? newest;
  return { at: newest.pingAt, status, online: best !== undefined, clientid };
}

/**
 * Returns the latest time, in epoch ms, at which the public view can last have changed. Pings of an
 * invisible device after its visible state expired do not count, so that they cannot be noticed.
 */
export function publicChangeAt<D extends Device>(
  devices: Iterable<D>,
  isAlive: (device: D) => boolean,
  ttlMs: number,
): number {
  return lastChange(devices, ttlMs, isAlive, (device) => ({
    sinceMs: device.seenAt,
    hidAtMs: device.status === INVISIBLE ? device.pingAt : undefined,
  }));
}

/** Returns the same for the view of the user's own devices, which includes invisible ones. */
export function ownChangeAt<D extends Device>(
  devices: Iterable<D>,
  isAlive: (device: D) => boolean,
  ttlMs: number,
): number {
  return lastChange(devices, ttlMs, isAlive, ({ pingAt }) => ({ sinceMs: pingAt }));
}

function lastChange<D extends Device>(
  devices: Iterable<D>,
  ttlMs: number,
  isAlive: (device: D) => boolean,
  shown: (device: D) => { sinceMs: number; hidAtMs?: number | undefined },
): number {
  let at = 0;
  for (const device of devices) {
    const { sinceMs, hidAtMs } = shown(device);
    if (sinceMs === 0) continue;
    const expiresAt = sinceMs + ttlMs;
    const endedAt = device.gone ? device.changedAt : hidAtMs;
    const aliveAt = isAlive(device) ? sinceMs : expiresAt;
    at = Math.max(at, endedAt === undefined ? aliveAt : Math.min(endedAt, expiresAt));
  }
  return at;
}

function outranks(a: Device, b: Device): boolean {
  const difference = rank(a.status) - rank(b.status);
  return difference > 0 || (difference === 0 && a.pingAt > b.pingAt);
}

/** Ranks statuses: active > do not disturb > away > other codes > invisible. */
function rank(status: string): number {
  switch (status) {
    case "0":
      return 4;
    case "2":
      return 3;
    case "1":
      return 2;
    case INVISIBLE:
      return 0;
    default:
      return 1;
  }
}
