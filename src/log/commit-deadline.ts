import { TimeLimit } from "../platform/time-limit.ts";

/** Aborts the attempts of a commit after `ms`, or at once if no time is left. */
export class CommitDeadline extends TimeLimit {
  constructor(ms: number) {
    super(ms, () => new Error("not stored in time"));
  }
}
