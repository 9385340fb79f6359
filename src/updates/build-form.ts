import { tooLarge } from "../platform/bodies/body.ts";
import { AppError, unavailable } from "../platform/errors.ts";
import { type FormEvent, checkFileName, formEvents } from "../platform/bodies/multipart.ts";
import { release } from "../platform/gc.ts";
import { type BuildChange, BuildTexts, NOTES_BYTES_MAX, parseTexts } from "./schema.ts";

// Size limit of the form without the build's file: its texts and separators.
const FORM_BYTES_MAX = 2 ** 20;

export type ReceivedFile = { name: string; bytes: number; md5: string; sha256: string };
/** Contents of a form whose file is stored. */
export type ReceivedBuild = {
  version: string;
  targetAbi: string;
  change: BuildChange;
  file: ReceivedFile;
};

type Options = {
  bytesMax: number;
  /** Stores the file; rejects if the object store fails. */
  store: (chunks: AsyncIterable<Uint8Array>) => Promise<void>;
};

/**
 * Reads the form of a build, whose texts may also be in the query, and stores its file as it
 * arrives. Throws 400 with the texts that clients know, 413 over `bytesMax`, 503 if the object
 * store fails.
 */
export async function receiveBuild(request: Request, options: Options): Promise<ReceivedBuild> {
  const form = new BuildForm(request, options);
  return await form.read();
}

class BuildForm {
  readonly #options: Options;
  readonly #events: AsyncGenerator<FormEvent>;
  readonly #query: Record<string, unknown>;
  readonly #fields = new Map<string, string>();
  readonly #seen = new Set<string>();
  #file: ReceivedFile | undefined;

  constructor(request: Request, options: Options) {
    this.#options = options;
    this.#query = BuildTexts.given(request);
    this.#events = eventsOf(request, options.bytesMax + FORM_BYTES_MAX);
  }

  async read(): Promise<ReceivedBuild> {
    try {
      for (let event = await this.#next(); event !== undefined; event = await this.#next()) {
        if (event.type === "field") this.#addField(event.name, event.value);
        else if (event.type === "file" && event.name === "tmpFile")
          await this.#addFile(event.filename);
      }
    } finally {
      await this.#events.return(undefined);
    }
    if (this.#file === undefined) throw new AppError("invalid", "http: no such file");
    return { ...this.#texts(), file: this.#file };
  }

  async #next(): Promise<FormEvent | undefined> {
    const { done, value } = await this.#events.next();
    return done === true ? undefined : value;
  }

  #addField(name: string, value: string): void {
    this.#once(name);
    this.#fields.set(name, value);
  }

  #once(name: string): void {
    if (this.#seen.has(name)) throw new AppError("invalid", `${name.slice(0, 64)} comes twice`);
    this.#seen.add(name);
  }

  async #addFile(name: string): Promise<void> {
    this.#once("tmpFile");
    checkFileName(name);
    // Checks the texts so far, so that errors are reported before the file has been sent.
    if ("appVersion" in this.#given()) this.#texts();
    const file = new Digest(name);
    try {
      await this.#options.store(this.#chunks(file));
    } catch (cause) {
      // An error of the form ends the upload to the store, too, and is the one to report.
      if (cause instanceof AppError) throw cause;
      throw unavailable("the build could not be stored, send it again", 10, {
        cause,
        reason: "store",
      });
    }
    this.#file = file.end();
  }

  /** Yields the bytes of the current part. */
  async *#chunks(file: Digest): AsyncGenerator<Uint8Array> {
    for (let event = await this.#next(); event?.type === "data"; event = await this.#next()) {
      file.add(event.bytes);
      if (file.bytes > this.#options.bytesMax) throw tooLarge(this.#options.bytesMax, "build");
      yield event.bytes;
    }
  }

  #texts() {
    return parseTexts(this.#given());
  }

  #given(): Record<string, unknown> {
    return { ...this.#query, ...Object.fromEntries(this.#fields) };
  }
}

/** Yields the events of the form. Throws 400 instead of 415 if the body is not a form. */
async function* eventsOf(request: Request, bytesMax: number): AsyncGenerator<FormEvent> {
  const limits = { inflatedBytesMax: bytesMax, fieldBytesMax: NOTES_BYTES_MAX };
  try {
    for await (const { events, spent } of formEvents(request, limits)) {
      yield* events;
      if (spent !== undefined) release(spent);
    }
  } catch (error) {
    if (error instanceof AppError && error.code === "unsupported_media")
      throw new AppError("invalid", "request Content-Type isn't multipart/form-data", {
        cause: error,
      });
    throw error;
  }
}

/** Counts and hashes a file as it streams by. */
class Digest {
  readonly #name: string;
  readonly #md5 = new Bun.CryptoHasher("md5");
  readonly #sha256 = new Bun.CryptoHasher("sha256");
  bytes = 0;

  constructor(name: string) {
    this.#name = name;
  }

  add(bytes: Uint8Array): void {
    this.bytes += bytes.length;
    this.#md5.update(bytes);
    this.#sha256.update(bytes);
  }

  end(): ReceivedFile {
    return {
      name: this.#name,
      bytes: this.bytes,
      md5: this.#md5.digest("hex"),
      sha256: this.#sha256.digest("hex"),
    };
  }
}
