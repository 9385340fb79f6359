import { crc32 } from "node:zlib";

import { type ArchiveCheck } from "./archive.ts";
import { type Digest } from "./contents.ts";
import { type PartWriter } from "./upload.ts";

// Any other type is served as plain bytes: a browser must not run what a client uploaded.
const SERVED_TYPE = /^image\/[\w.+-]{1,64}$/;
/** Result of storing a file. A `conflict` is stored beside other bytes under its name. */
export type Outcome = "stored" | "known" | "conflict" | "discarded";

/** A file of a form, as far as it has arrived. */
export class File implements Digest {
  readonly name: string;
  readonly contentType: string;
  /** Undefined if the file is not stored because the session is not recorded. */
  readonly writer: PartWriter | undefined;
  readonly archive: ArchiveCheck | undefined;
  readonly #hasher = new Bun.CryptoHasher("sha256");
  bytes = 0;
  crc32 = 0;
  sha256 = "";
  /** Number of times that the file is in the form; `place` is its last position. */
  times = 1;
  place = 0;
  outcome: Outcome = "discarded";

  constructor(
    name: string,
    contentType: string,
    { writer, archive }: Pick<File, "writer" | "archive">,
  ) {
    this.name = name;
    this.contentType = SERVED_TYPE.test(contentType) ? contentType : "application/octet-stream";
    this.writer = writer;
    this.archive = archive;
  }

  /** Returns a promise if the file is an archive, whose bytes take a while to check. */
  take(bytes: Uint8Array): Promise<void> | undefined {
    this.bytes += bytes.length;
    this.#hasher.update(bytes);
    this.crc32 = crc32(bytes, this.crc32);
    return this.archive?.write(bytes);
  }

  async end(): Promise<void> {
    await this.archive?.end();
    this.sha256 = this.#hasher.digest("hex");
  }
}
