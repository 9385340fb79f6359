import { t } from "elysia";

import { type CommitLog } from "../log/commit-log.ts";
import { type InflightBytes } from "../log/inflight-bytes.ts";
import { tooLarge } from "../platform/bodies/body.ts";
import { type Clock } from "../platform/clock.ts";
import { type Sql } from "../platform/database/database.ts";
import { AppError } from "../platform/errors.ts";
import { Input } from "../platform/input.ts";
import { readBy } from "../platform/schema.ts";
import { type Metrics } from "../platform/telemetry/metrics.ts";
import { type FormEvent, checkFileName } from "../platform/bodies/multipart.ts";
import { type Projects } from "../projects/service.ts";
import { ArchiveCheck } from "./archive.ts";
import { type ContentLookup, type Found } from "./content-lookup.ts";
import { type SentImage, useContents } from "./contents.ts";
import { File, type Outcome } from "./form-file.ts";
import { HeldFiles } from "./held-files.ts";
import { type Unhashed } from "./unhashed.ts";
import {
  type Owner,
  PartWriter,
  UploadWindow,
  carryRows,
  rowBytesMax,
  storeRows,
} from "./upload.ts";

// The web tracker sends that many images of canvas elements at a time.
const CANVAS_FILES_MAX = 10;
/** Fields of a form beside its files. Others are ignored. */
export const UploadFields = new Input({
  projectID: t.Optional(
    readBy({ type: "string", pattern: "^\\d+$", example: "7286977268806823" }, Number),
  ),
  projectKey: t.Optional(t.String({ description: "instead of projectID" })),
  type: t.Optional(t.String({ description: "`frames` if the files are archives of frames" })),
});

export type FormDeps = {
  sql: Sql;
  commitLog: CommitLog;
  inflight: InflightBytes;
  projects: Projects;
  contents: ContentLookup;
  unhashed: Unhashed;
  metrics: Metrics;
  clock: Clock;
};
/** Differences between the forms of SDKs. */
export type FormRules = {
  /** Set if the form must name the session's project. */
  projectRequired?: boolean;
  /** Set if all files are images of canvas elements: archives of frames or single frames. */
  isCanvas?: boolean;
};
export type FormOptions = {
  rules: FormRules;
  fileBytesMax: number;
  recorded: boolean;
  /**
   * Called before an image is stored that is new to the project; throws 429 if there are too many.
   */
  admitName: () => void;
};
/** Owner of an upload; `network` is the hash of the client's network (see `networkMark`). */
export type Sender = Owner & { network: number | null };

/**
 * Stores one upload. Files are written to segments as they arrive, but count only once the whole
 * form has been read.
 */
export class Form implements Disposable {
  readonly window: UploadWindow;
  readonly #deps: FormDeps;
  readonly #sender: Sender;
  readonly #options: FormOptions;
  readonly #fields = new Map<string, string>();
  /** Files by name and hash. */
  readonly #files = new Map<string, File>();
  readonly #held: HeldFiles;
  #places = 0;
  #file: File | undefined;

  constructor(deps: FormDeps, sender: Sender, options: FormOptions) {
    this.#deps = deps;
    this.#sender = sender;
    this.#options = options;
    this.window = new UploadWindow(deps.commitLog, deps.inflight);
    this.#held = new HeldFiles(deps.inflight, sender.projectId);
  }

  /** Takes the next event. Returns a promise if the one after it has to wait. */
  take(event: FormEvent): Promise<void> | undefined {
    if (event.type === "field") this.#keep(event.name, event.value);
    else if (event.type === "file") this.#file = this.#begin(event.filename, event.contentType);
    else if (this.#file === undefined) throw new AppError("invalid", "the form is malformed");
    else if (event.type === "data") return this.#write(this.#file, event.bytes);
    else return this.#end(this.#file);
    return undefined;
  }

  /** Takes a chunk of the body, to whose bytes no later event refers, to release it. */
  release(chunk: Uint8Array): void {
    this.#held.release(chunk);
  }

  /** Keeps known fields only: others would use memory for as long as the upload lasts. */
  #keep(name: string, value: string): void {
    if (Object.hasOwn(UploadFields.schema.properties, name)) this.#fields.set(name, value);
  }

  get #isFrames(): boolean {
    return this.#fields.get("type") === "frames";
  }

  /**
   * Reserves that many more bytes. If there is no room returns a promise, which resolves when there
   * is; the upload then first writes its held files to segments, because others may be waiting for
   * those bytes.
   */
  hold(bytes: number): Promise<void> | undefined {
    const { inflight, commitLog } = this.#deps;
    const { projectId } = this.#sender;
    if (!inflight.admits(projectId)) {
      this.#held.write();
      commitLog.hurry();
      return inflight.hold(projectId, bytes);
    }
    inflight.add(projectId, bytes);
    return undefined;
  }

  /**
   * Throws 400 if a required project is missing, 403 if the session belongs to another project, 415
   * if files of a canvas are not what the form says.
   */
  async checkFields(): Promise<void> {
    const { projectRequired, isCanvas } = this.#options.rules;
    const files = [...this.#files.values()];
    if (isCanvas && this.#isFrames && files.some(({ archive }) => archive === undefined))
      throw new AppError("unsupported_media", "a file of frames must be named *.frames");
    const { projectID, projectKey } = UploadFields.read(Object.fromEntries(this.#fields));
    if (projectID === undefined && projectKey === undefined) {
      if (projectRequired) throw new AppError("invalid", "projectID is missing");
      return;
    }
    const project = await this.#deps.projects.identify({ projectID, projectKey });
    // A session without a row has no known project that the form could contradict.
    if (this.#sender.projectId !== 0 && project.id !== this.#sender.projectId)
      throw new AppError("forbidden", "the session belongs to another project");
  }

  /** Stores the form; once it resolves, the session can read every file back. */
  async store(): Promise<void> {
    const { sql, commitLog, inflight, metrics } = this.#deps;
    const { projectId } = this.#sender;
    const files = [...this.#files.values()];
    if (files.length === 0) throw new AppError("invalid", "the form has no file");
    const storedMs = this.#deps.clock.epochMs();
    const known = files
      .filter(({ outcome }) => outcome === "known")
      .map((file) => this.#row(file, storedMs));
    const fresh = files.flatMap((file) =>
      file.writer === undefined || file.outcome === "known"
        ? []
        : [{ writer: file.writer, row: this.#row(file, storedMs) }],
    );
    const rowBytes = rowBytesMax(fresh);
    // The whole form has been read: wait for room rather than make the client send it again.
    await this.hold(rowBytes);
    try {
      this.#held.write();
      await storeRows(commitLog, fresh, this.#sender);
    } finally {
      inflight.release(projectId, rowBytes);
    }
    if (known.length > 0) {
      const chunks = await useContents(sql, projectId, known);
      carryRows(commitLog, known, chunks, this.#sender);
    }
    for (const { outcome, times } of files) metrics.images.inc({ outcome }, times);
  }

  [Symbol.dispose](): void {
    this.#held[Symbol.dispose]();
  }

  #begin(name: string, contentType: string): File {
    checkFileName(name);
    const { recorded, fileBytesMax, rules } = this.#options;
    if (rules.isCanvas && this.#places === CANVAS_FILES_MAX)
      throw new AppError("invalid", `the form has more than ${CANVAS_FILES_MAX} images`);
    const writer = recorded
      ? new PartWriter(this.#deps.commitLog, this.#sender, this.window)
      : undefined;
    if (writer !== undefined) this.#held.begin(writer);
    return new File(name, contentType, {
      writer,
      archive: ArchiveCheck.for(name, fileBytesMax),
    });
  }

  #write(file: File, bytes: Uint8Array): Promise<void> | undefined {
    const { fileBytesMax } = this.#options;
    if (file.bytes + bytes.length > fileBytesMax) throw tooLarge(fileBytesMax, "file");
    const checked = file.take(bytes);
    const { writer } = file;
    if (writer !== undefined && (!this.#held.has(writer) || !this.#held.add(bytes)))
      writer.write(bytes);
    return checked;
  }

  async #end(file: File): Promise<void> {
    const { writer } = file;
    await file.end();
    const key = `${file.sha256}/${file.name}`;
    const earlier = this.#files.get(key);
    const first = earlier ?? file;
    first.place = this.#places++;
    if (earlier !== undefined) earlier.times++;
    else {
      this.#files.set(key, file);
      if (writer !== undefined) file.outcome = await this.#outcome(file, writer);
      if (file.outcome === "stored" || file.outcome === "conflict") this.#options.admitName();
    }
    this.#file = undefined;
    if (writer === undefined) return;
    const isHeld = this.#held.has(writer);
    if (earlier === undefined && file.outcome !== "known") {
      if (!isHeld) writer.end();
    } else if (isHeld) this.#held.drop();
    else writer.drop();
  }

  async #outcome(file: File, writer: PartWriter): Promise<Outcome> {
    // A session without a project may get one at any time, so nothing counts as known.
    if (this.#sender.projectId === 0) return "stored";
    const found = await this.#find(file, writer);
    if (found.known) return "known";
    return found.others && !found.maybe ? "conflict" : "stored";
  }

  async #find(file: File, writer: PartWriter): Promise<Found> {
    const { contents, unhashed } = this.#deps;
    const { projectId } = this.#sender;
    const found = await contents.find(projectId, file.name, file);
    // If the file's bytes are in segments already, hashing stored images would save nothing.
    if (found.known || !found.maybe || !this.#held.has(writer)) return found;
    await unhashed.hash(projectId, file.name);
    return await contents.find(projectId, file.name, file);
  }

  #row(file: File, storedMs: number): SentImage {
    const { archive, name, contentType, bytes, crc32: sum, sha256, times, place } = file;
    const isFrames = archive !== undefined || this.#isFrames || this.#options.rules.isCanvas;
    return {
      project_id: this.#sender.projectId,
      name,
      session_id: String(this.#sender.sessionId),
      kind: isFrames ? "frames" : "image",
      content_type: contentType,
      bytes,
      crc32: sum,
      sha256,
      // Frames belong to a single session: their network is not needed.
      network: isFrames ? null : this.#sender.network,
      uses: times,
      stored_at: timeOf(storedMs, place),
    };
  }
}

/**
 * Formats a time with the file's place as its microseconds: of several files of one name the last
 * must be the session's latest. A form has at most a thousand parts.
 */
function timeOf(ms: number, place: number): string {
  return new Date(ms).toISOString().replace("Z", `${String(place).padStart(3, "0")}Z`);
}
