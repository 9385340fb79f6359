import { crc32 } from "node:zlib";

import { type CommitLog } from "../ingest/commit-log.ts";
import { type InflightBytes } from "../ingest/inflight-bytes.ts";
import { tooLarge } from "../platform/body.ts";
import { type Sql } from "../platform/database.ts";
import { AppError } from "../platform/errors.ts";
import { type Metrics } from "../platform/metrics.ts";
import { type Projects } from "../projects/service.ts";
import { ArchiveCheck } from "./archive.ts";
import { type FormEvent, checkFileName } from "../platform/multipart.ts";
import { type Owner, PartWriter, UploadWindow, rowBytesMax, storeRows } from "./upload.ts";

// Any other type is served as plain bytes: a browser must not run what a client uploaded.
const SERVED_TYPE = /^image\/[\w.+-]{1,64}$/;
const FIELDS = new Set(["projectID", "projectKey", "type"]);

export type FormDeps = {
  sql: Sql;
  commitLog: CommitLog;
  inflight: InflightBytes;
  projects: Projects;
  metrics: Metrics;
};
export type FormOptions = {
  fileBytesMax: number;
  recorded: boolean;
  /** Called before a name is stored that the project does not have; throws 429 when there are too many. */
  admitName: () => void;
};

type File = {
  name: string;
  contentType: string;
  bytes: number;
  /** absent when nothing is to be stored: the name is taken, or the session is not recorded */
  writer: PartWriter | undefined;
  /** what is stored under the name already */
  known: Content | undefined;
  crc32: number;
  archive: ArchiveCheck | undefined;
};

/** Enough to tell that other bytes came under a stored name, which is counted and no more; a cryptographic hash would be a third of an upload's work. */
type Content = { bytes: number; crc32: number };

/** One upload: its files go into segments as they arrive, and count only when the whole form has been read. */
export class Form {
  readonly window = new UploadWindow();
  readonly #deps: FormDeps;
  readonly #owner: Owner;
  readonly #options: FormOptions;
  readonly #fields = new Map<string, string>();
  readonly #files: File[] = [];
  #file: File | undefined;

  constructor(deps: FormDeps, owner: Owner, options: FormOptions) {
    this.#deps = deps;
    this.#owner = owner;
    this.#options = options;
  }

  async take(event: FormEvent): Promise<void> {
    if (event.type === "field") this.#keep(event.name, event.value);
    else if (event.type === "file")
      this.#file = await this.#begin(event.filename, event.contentType);
    else if (this.#file === undefined) throw new AppError("invalid", "the form is malformed");
    else if (event.type === "data") await this.#write(this.#file, event.bytes);
    else await this.#end(this.#file);
  }

  /** Whatever else a client sends must not pile up while its upload goes on. */
  #keep(name: string, value: string): void {
    if (FIELDS.has(name)) this.#fields.set(name, value);
  }

  /** Throws 400 when a required project is not named, 403 when it is not the session's. */
  async checkProject(required: boolean): Promise<void> {
    const encoded = this.#fields.get("projectID");
    const projectKey = this.#fields.get("projectKey");
    if (encoded === undefined && projectKey === undefined) {
      if (required) throw new AppError("invalid", "projectID is missing");
      return;
    }
    const projectID = encoded === undefined ? undefined : Number(encoded);
    const project = await this.#deps.projects.identify({ projectID, projectKey });
    // Of a session that has no row nothing is known that the form could contradict.
    if (this.#owner.projectId !== 0 && project.id !== this.#owner.projectId)
      throw new AppError("forbidden", "the session belongs to another project");
  }

  /** Resolved means that every file of the form can be read back. */
  async store(): Promise<void> {
    const { sql, commitLog, inflight, metrics } = this.#deps;
    const { projectId } = this.#owner;
    if (this.#files.length === 0) throw new AppError("invalid", "the form has no file");
    const kind = (file: File) =>
      file.archive !== undefined || this.#fields.get("type") === "frames" ? "frames" : "image";
    const fresh = this.#files.flatMap((file) =>
      file.writer === undefined ? [] : [{ writer: file.writer, row: this.#row(file, kind(file)) }],
    );
    const known = this.#files.filter((file) => file.known !== undefined);
    const rowBytes = rowBytesMax(fresh);
    // All of the form was read: it waits for room instead of being sent again.
    await inflight.hold(projectId, rowBytes);
    try {
      await storeRows(commitLog, fresh, this.#owner);
    } finally {
      inflight.release(projectId, rowBytes);
    }
    if (known.length > 0)
      await countUses(
        sql,
        projectId,
        known.map(({ name }) => name),
      );

    for (const file of this.#files) metrics.images.inc({ outcome: outcomeOf(file) });
  }

  async #begin(name: string, contentType: string): Promise<File> {
    checkFileName(name);
    const { sql, commitLog } = this.#deps;
    const known = this.#options.recorded
      ? await selectContent(sql, this.#owner.projectId, name)
      : undefined;
    const stores = this.#options.recorded && known === undefined;
    if (stores) this.#options.admitName();
    const file: File = {
      name,
      contentType: SERVED_TYPE.test(contentType) ? contentType : "application/octet-stream",
      bytes: 0,
      writer: stores ? new PartWriter(commitLog, this.#owner, this.window) : undefined,
      known,
      crc32: 0,
      archive: ArchiveCheck.for(name, this.#options.fileBytesMax),
    };
    this.#files.push(file);
    return file;
  }

  async #write(file: File, bytes: Uint8Array): Promise<void> {
    file.bytes += bytes.length;
    if (file.bytes > this.#options.fileBytesMax) throw tooLarge(this.#options.fileBytesMax, "file");
    file.crc32 = crc32(bytes, file.crc32);
    await file.archive?.write(bytes);
    file.writer?.write(bytes);
  }

  async #end(file: File): Promise<void> {
    await file.archive?.end();
    file.writer?.end();
    this.#file = undefined;
  }

  #row(file: File, kind: "image" | "frames") {
    return {
      project_id: this.#owner.projectId,
      name: file.name,
      session_id: String(this.#owner.sessionId),
      kind,
      content_type: file.contentType,
      bytes: file.bytes,
      crc32: file.crc32,
      uses: 1,
      stored_at: new Date().toISOString(),
    };
  }
}

function outcomeOf({ writer, known, bytes, crc32: sum }: File): string {
  if (writer !== undefined) return "stored";
  if (known === undefined) return "discarded";
  return known.bytes === bytes && known.crc32 === sum ? "known" : "conflict";
}

async function selectContent(
  sql: Sql,
  projectId: number,
  name: string,
): Promise<Content | undefined> {
  const [row] = await sql<Content[]>`
    select bytes::double precision as bytes, crc32::double precision as crc32
    from images where project_id = ${projectId} and name = ${name}`;
  return row;
}

async function countUses(sql: Sql, projectId: number, names: string[]): Promise<void> {
  await sql`
    with known as (
      select name from images where project_id = ${projectId} and name = any(${names})
      -- In the order that indexing has, too: otherwise two forms could deadlock over the same names.
      order by name for no key update
    )
    update images set uses = uses + 1 from known
    where images.project_id = ${projectId} and images.name = known.name`;
}
