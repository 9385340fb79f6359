import { SessionRecords, type SessionRecordsDeps } from "../archives/session-records.ts";
import { AppError } from "../platform/errors.ts";
import { BatchRows } from "./batch-rows.ts";
import { type FrameImages, frameFiles } from "./frame-files.ts";
import { type MobileBatches, mobileFile } from "./mobile-file.ts";
import { type ReplayFile } from "./replay-file.ts";
import { devtoolsFile, domFiles } from "./web-files.ts";

/** Names of the files that are made of batches. */
const OF_BATCHES = /^(?:dom\.mob[se]|devtools\.mob)$/;

export type ReplaysDeps = {
  records: SessionRecordsDeps;
  mobile: MobileBatches;
  /** Returns when a session began. */
  startedAt: (sessionId: bigint) => Promise<Date>;
  /** Returns a session's images. */
  images: (sessionId: bigint) => FrameImages;
};

/** The files from which OpenReplay's player shows a session, composed of what is stored of it. */
export class Replays {
  readonly #deps: ReplaysDeps;

  constructor(deps: ReplaysDeps) {
    this.#deps = deps;
  }

  /** Returns the files that the session has at this moment. */
  async list(sessionId: bigint): Promise<ReplayFile[]> {
    return [...(await this.#ofBatches(sessionId)), ...(await this.#ofFrames(sessionId))];
  }

  /** Throws 404. */
  async find(sessionId: bigint, name: string): Promise<ReplayFile> {
    const files = OF_BATCHES.test(name)
      ? await this.#ofBatches(sessionId)
      : await this.#ofFrames(sessionId);
    const file = files.find((one) => one.name === name);
    if (file === undefined) throw new AppError("not_found", "the session has no such replay file");
    return file;
  }

  /** Returns the files of a web page or, if the session has no batches of one, of a phone. */
  async #ofBatches(sessionId: bigint): Promise<ReplayFile[]> {
    const { records: deps, mobile, startedAt } = this.#deps;
    const records = new SessionRecords(deps, sessionId);
    const rows = await BatchRows.read(records, await startedAt(sessionId));
    const messages = rows.filter((kind) => kind === "mobile");
    const dom = rows.filter((kind) => kind !== "mobile" && kind !== "devtools");
    const devtools = rows.filter((kind) => kind === "devtools");
    const files: ReplayFile[] = [];
    // A file that cannot be read, rather than none, if nothing is known of the batches.
    const isLost = rows.length === 0 && rows.lost !== undefined;
    if (dom.length > 0 || isLost) files.push(...domFiles(records, dom));
    else if (messages.length > 0) files.push(mobileFile(records, messages, mobile));
    if (devtools.length > 0) files.push(devtoolsFile(records, devtools));
    return files;
  }

  async #ofFrames(sessionId: bigint): Promise<ReplayFile[]> {
    return await frameFiles(this.#deps.images(sessionId));
  }
}
