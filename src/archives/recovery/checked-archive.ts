import { unpack } from "msgpackr";

import {
  WINDOW_BYTES,
  Window,
  countOf,
  frameProblem,
  recordOf,
} from "../../log/checked-segment.ts";
import { type Footer, footerBytes } from "../../log/footer.ts";
import {
  RECORD_HEADER_BYTES,
  type SegmentEntry,
  SegmentError,
  compareRecord,
} from "../../log/record.ts";
import { type ArchivedContent, type ContentRecord } from "../../log/recovery/archived-images.ts";
import { type Listed, type ProjectRecord, readEndOf } from "../../log/stored-segment.ts";
import { discarded } from "../../platform/gc.ts";
import { type ObjectStore } from "../../platform/objects/objects.ts";
import { type ArchiveName, archiveNameOf } from "../archive-key.ts";
import {
  type ArchivedBatch,
  type Frame,
  type Index,
  unpackFrame,
  unpackIndex,
} from "../piece-index.ts";
import { type Archive, addBatch } from "../piece.ts";
import { type CheckedPiece, addRow, noRecords, withUnlisted } from "./checked-piece.ts";

export type CheckedPart =
  | { piece: CheckedPiece }
  | { content: ArchivedContent }
  | { project: ProjectRecord };

/** Called with each batch that can be read. */
type OnBatch = (sessionId: bigint, batch: ArchivedBatch, body: Uint8Array) => Promise<void>;

/**
 * Reads and verifies every byte of an archive: its footer, its records, and indexes against the
 * frames. Holds a part of it in memory at a time, and the entries of its footer.
 */
export class CheckedArchive {
  readonly archive: Archive;
  /** Ids of the segments and archives that it was made of. */
  readonly sources: string[];
  readonly #objects: ObjectStore;
  readonly #listed: Listed;
  readonly #footer: Footer;
  readonly #footerLength: number;
  readonly #window: Window;
  #mismatched = 0;
  #contradiction: string | undefined;

  /** Throws SegmentError if the object has no valid footer, so that its records cannot be located. */
  static async open(objects: ObjectStore, listed: Listed): Promise<CheckedArchive> {
    const name = archiveNameOf(listed.key);
    if (name === undefined) throw new SegmentError("the key is not that of an archive");
    const { footer, tail } = await readEndOf(objects, listed, WINDOW_BYTES);
    if (footer.id !== name.id) throw new SegmentError("the id of the archive differs from its key");
    return new CheckedArchive(objects, listed, name, footer, tail);
  }

  private constructor(
    objects: ObjectStore,
    listed: Listed,
    name: ArchiveName,
    footer: Footer,
    tail: Uint8Array,
  ) {
    const { key, bytes } = listed;
    const records = footer.entries.length;
    this.archive = { ...name, kind: kindOf(footer), bytes, records };
    this.sources = footer.sources ?? [];
    this.#objects = objects;
    this.#listed = listed;
    this.#footer = footer;
    this.#footerLength = footerBytes(tail);
    this.#window = new Window(objects, key, bytes - tail.length, tail);
  }

  /** Yields what can be read of each part. */
  async *parts(onBatch?: OnBatch): AsyncGenerator<CheckedPart> {
    const { kind } = this.archive;
    const { entries } = this.#footer;
    if (kind === "sessions")
      for (const part of runs(entries, (entry, last) => entry.sessionId !== last.sessionId))
        yield { piece: await this.#piece(part, onBatch) };
    else
      for (const part of runs(entries, ({ kind: next }) => next !== "chunk")) {
        const [head, ...chunks] = part;
        const body = head === undefined ? undefined : await this.#body(head);
        const isWhole = await this.#areWhole(chunks);
        if (body === undefined) continue;
        if (kind === "projects") yield { project: unpack(body) };
        else yield { content: this.#content(unpack(body), part, isWhole) };
      }
    discarded(this.#listed.bytes);
  }

  /** Describes the damage that was found; undefined if all parts are as they were written. */
  async problem(): Promise<string | undefined> {
    const { bytes } = this.#listed;
    const frame = await frameProblem(this.#window, this.#footer, this.#footerLength, bytes);
    return frame ?? countOf(this.#mismatched, this.#footer) ?? this.#contradiction;
  }

  async #piece(entries: SegmentEntry[], onBatch?: OnBatch): Promise<CheckedPiece> {
    const [first, last] = [entries[0], entries.at(-1)];
    if (first === undefined || last === undefined) throw new Error("a piece without records");
    const [start, end] = [headerOf(first), last.offset + last.length];
    const isSmall = end - start <= WINDOW_BYTES;
    // Small pieces are read at once, although their indexes come last.
    if (isSmall) await this.#window.read(start, end, this.#listed.bytes);
    const indexes = await this.#indexes(entries, isSmall);
    const checked = noRecords(this.archive, start, first);
    const rows = entries.filter(({ kind }) => kind === "session" || kind === "image");
    for (const entry of rows) addRow(checked, entry, await this.#body(entry));
    const unlisted = await this.#batches(entries, indexes, { checked, start, onBatch });
    checked.rows = indexes.flatMap((index) => index?.rows ?? []);
    if (!indexes.includes(undefined) && checked.rows.length !== rows.length)
      this.#contradiction = "an index contradicts the rows";
    const firstIndex = entries.find(({ kind }) => kind === "index");
    const indexStart = firstIndex === undefined ? end : headerOf(firstIndex);
    checked.piece = { ...checked.piece, indexStart, length: end - start };
    if (unlisted > 0) checked.piece = withUnlisted(checked.piece, unlisted);
    return checked;
  }

  /** Returns the indexes of a piece; undefined for one that cannot be read. */
  async #indexes(entries: SegmentEntry[], isSmall: boolean): Promise<(Index | undefined)[]> {
    const { key } = this.#listed;
    const window = isSmall ? this.#window : new Window(this.#objects, key, 0, new Uint8Array(0));
    const ofIndexes = entries.filter(({ kind }) => kind === "index");
    if (ofIndexes.length === 0) this.#contradiction = "a piece has no index";
    const indexes: (Index | undefined)[] = [];
    for (const entry of ofIndexes) {
      const body = await this.#body(entry, window);
      indexes.push(this.#parsed(() => body && unpackIndex(body)));
    }
    return indexes;
  }

  /**
   * Reads the batches of a piece in the order of its indexes. Returns the number of frames of which
   * no index says what is in them.
   */
  async #batches(
    entries: SegmentEntry[],
    indexes: (Index | undefined)[],
    {
      checked,
      start,
      onBatch,
    }: { checked: CheckedPiece; start: number; onBatch?: OnBatch | undefined },
  ): Promise<number> {
    const frames = new Map(
      entries.flatMap((entry) => (entry.kind === "frame" ? [[headerOf(entry), entry]] : [])),
    );
    for (const index of indexes) {
      let at = start + (index?.at ?? 0);
      let nth = 0;
      for (const frame of index?.frames ?? []) {
        const batches = index?.batches.slice(nth, nth + frame.batches) ?? [];
        const bodies = await this.#frame(frames.get(at), frame, batches);
        frames.delete(at);
        nth += frame.batches;
        at += RECORD_HEADER_BYTES + frame.length;
        for (const [place, batch] of batches.entries()) {
          checked.batches.push(batch);
          addBatch(checked.piece, batch);
          const body = bodies?.[place];
          if (body === undefined) checked.lost.add(batch);
          else await onBatch?.(checked.piece.sessionId, batch, body);
        }
      }
    }
    await this.#areWhole(frames.values());
    if (frames.size > 0) this.#contradiction = "an index contradicts the frames";
    return frames.size;
  }

  /** Returns the bodies of a frame's batches; undefined for those that are not what was written. */
  async #frame(
    entry: SegmentEntry | undefined,
    frame: Frame,
    batches: ArchivedBatch[],
  ): Promise<(Uint8Array | undefined)[] | undefined> {
    const body = entry === undefined ? undefined : await this.#body(entry);
    if (entry?.length !== frame.length) this.#contradiction = "an index contradicts the frames";
    const bodies = this.#parsed(() => body && unpackFrame(body, frame, batches));
    return bodies?.map((one, nth) => {
      if (Bun.hash.xxHash3(one) === BigInt.asUintN(64, batches[nth]?.hash ?? 0n)) return one;
      this.#contradiction = "a batch differs from its hash";
      return undefined;
    });
  }

  #parsed<Value>(parse: () => Value): Value | undefined {
    try {
      return parse();
    } catch (error) {
      if (!(error instanceof SegmentError)) throw error;
      this.#contradiction = error.message;
      return undefined;
    }
  }

  /** Returns what an archive of images says about a content, and where its bytes are. */
  #content(row: ContentRecord, entries: SegmentEntry[], isWhole: boolean): ArchivedContent {
    const chunks = entries.slice(1);
    const [first, last] = [chunks[0] ?? entries[0], entries.at(-1)];
    const end = (last?.offset ?? 0) + (last?.length ?? 0);
    const offset = chunks.length === 0 || first === undefined ? end : headerOf(first);
    const bytes = chunks.reduce((sum, { length }) => sum + length, 0);
    if (bytes !== row.bytes) this.#contradiction = "an image has other bytes than its row says";
    return { row, offset, length: end - offset, isWhole: isWhole && bytes === row.bytes };
  }

  /** Returns the body of a record; undefined if it is damaged. */
  async #body(entry: SegmentEntry, window = this.#window): Promise<Uint8Array | undefined> {
    const record = await recordOf(window, entry, this.#listed.bytes);
    const state = compareRecord(record, entry);
    if (state !== "whole") this.#mismatched++;
    return state === "damaged" ? undefined : record.subarray(RECORD_HEADER_BYTES);
  }

  async #areWhole(entries: Iterable<SegmentEntry>): Promise<boolean> {
    let areWhole = true;
    for (const entry of entries) areWhole = (await this.#body(entry)) !== undefined && areWhole;
    return areWhole;
  }
}

/** Divides entries; a new run begins where `begins` says so. */
function* runs(
  entries: SegmentEntry[],
  begins: (entry: SegmentEntry, last: SegmentEntry) => boolean,
): Generator<SegmentEntry[]> {
  let run: SegmentEntry[] = [];
  for (const entry of entries) {
    const last = run.at(-1);
    if (last !== undefined && begins(entry, last)) {
      yield run;
      run = [];
    }
    run.push(entry);
  }
  if (run.length > 0) yield run;
}

function kindOf({ entries: [first] }: Footer): Archive["kind"] {
  if (first?.kind === "project") return "projects";
  return first?.kind === "content" || first?.kind === "chunk" ? "images" : "sessions";
}

function headerOf({ offset }: SegmentEntry): number {
  return offset - RECORD_HEADER_BYTES;
}
