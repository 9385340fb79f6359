import { uuidTimeMs } from "../platform/uuid-time.ts";

const KEY =
  /^archives\/(0|[1-9]\d{0,9})\/(\d{4}-\d\d-\d\d)\/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$/;

/** Identity of an archive, which its key tells. */
export type ArchiveName = {
  /** UUIDv7. */
  id: string;
  /** 0: of sessions that belong to no known project. */
  projectId: number;
  /** UTC day as `yyyy-mm-dd`: of its sessions' starts, or on which its images were stored. */
  day: string;
};

/** Returns the object key of an archive. */
export function archiveKey({ id, projectId, day }: ArchiveName): string {
  return `archives/${projectId}/${day}/${id}`;
}

/** Returns the name of the archive with this key, or undefined if it is not an archive's key. */
export function archiveNameOf(key: string): ArchiveName | undefined {
  const [, projectId, day, id] = KEY.exec(key) ?? [];
  if (projectId === undefined || day === undefined || id === undefined) return undefined;
  return { id, projectId: Number(projectId), day };
}

/** Returns the UTC day of a time in ms since the epoch, as `yyyy-mm-dd`. */
export function dayOf(ms: number): string {
  return new Date(ms).toISOString().slice(0, 10);
}

/** Returns when the archive got its id, in ms since the epoch. */
export function archiveTime(id: string): number {
  return uuidTimeMs(id);
}
