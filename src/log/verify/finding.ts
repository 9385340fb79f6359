export type State = "missing" | "damaged";

export type SegmentFinding = { what: "segment"; state: State; key: string; reason: string };
export type ArchiveFinding = { what: "archive"; state: State; key: string; reason: string };

/** Numbers of a session's batches and images that are lost; null: its project is unknown. */
export type SessionFinding = {
  what: "session";
  state: State;
  sessionID: string;
  projectId: number | null;
  batches: number;
  images: number;
};

/** An image; without a hash one of the previous version. */
export type ImageFinding = {
  what: "image";
  state: State;
  projectId: number | null;
  name: string;
  sha256: string | null;
};

/** A segment or archive of which something is lost, or those whom that affects. */
export type Finding = SegmentFinding | ArchiveFinding | SessionFinding | ImageFinding;
