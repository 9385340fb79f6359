import { longerThan, storableText } from "../platform/text.ts";

const KEY_MAX = 255;
const TEXT_MAX = 1000;
const ADDED_MAX = 1000;
const TIME_MAX_MS = Date.UTC(2100, 0);
/** Bytes that a text needs at most before it is cut. */
export const LABEL_BYTES_MAX = 4 * TEXT_MAX;

/** Which of two texts with one key counts, and how many texts are kept. */
const KINDS = {
  user: { isNewer: true, max: 16 },
  anonymous: { isNewer: true, max: 16 },
  metadata: { isNewer: true, max: 64 },
  page: { isNewer: false, max: 64 },
};
export type LabelKind = keyof typeof KINDS;
const NAMES: LabelKind[] = ["user", "anonymous", "metadata", "page"];

/** `at` is epoch milliseconds by the client's clock. Only metadata has a value beside its key. */
type Label = { key: string; value: string; at: number };

/** Labels as columns of a session. */
export type LabelColumns = {
  /** Searched by containment. Ids are in the order of their times, the current one last. */
  labels: { user: string[]; anonymous: string[]; metadata: Record<string, string> };
  /** URLs and screens in the order of their first visits. */
  pages: string[];
  /** All labels with their times, from which the other columns follow. */
  dated_labels: StoredLabels;
};
export type StoredLabels = Partial<Record<LabelKind, [key: string, value: string, at: number][]>>;

/**
 * Texts that a session is found by. Merging them in any order gives the same, because batches
 * arrive in any order and in several processes. Texts are cut, and only so many of a kind are kept.
 */
export class Labels {
  readonly #kinds = {
    user: new Map<string, Label>(),
    anonymous: new Map<string, Label>(),
    metadata: new Map<string, Label>(),
    page: new Map<string, Label>(),
  };
  #added = 0;
  #lastPage: Uint8Array | undefined;

  static of(stored: StoredLabels): Labels {
    const labels = new Labels();
    for (const kind of NAMES)
      for (const [key, value, at] of stored[kind] ?? []) labels.#note(kind, { key, value, at });
    return labels;
  }

  /** True if no more can be added: a hostile batch may have a hundred thousand. */
  get isFull(): boolean {
    return this.#added >= ADDED_MAX;
  }

  /** Adds a user id, an anonymous id, a page, or a key of metadata and its value. */
  add(kind: LabelKind, ms: number, text: string, value = ""): void {
    if (this.isFull) return;
    const key = cut(text, kind === "page" ? TEXT_MAX : KEY_MAX);
    // The last one of several in one millisecond is the newest. A time that no clock has is the
    // oldest, because its label would stay the newest for ever.
    const at = (ms < TIME_MAX_MS ? ms : 0) + this.#added++ / 1000;
    if (key === "") return;
    this.#note(kind, { key, value: kind === "metadata" ? cut(value, TEXT_MAX) : "", at });
  }

  /** Returns whether merging the other labels would change nothing. */
  covers(other: Labels): boolean {
    return NAMES.every((kind) =>
      other.#kinds[kind].values().every((label) => this.#hasBetter(kind, label)),
    );
  }

  copy(): Labels {
    const copied = new Labels();
    copied.merge(this);
    return copied;
  }

  /**
   * Returns whether a message begins with the same page as the last one that was asked about: only
   * the first visit counts, and a screen is often reported again.
   */
  isSamePage(body: Uint8Array): boolean {
    const last = this.#lastPage;
    const length = 1 + (body[0] ?? 0);
    // Longer texts have a longer length, and are read.
    if (length > 0x80 || length > body.length) return false;
    let at = 0;
    while (at < length && last?.[at] === body[at]) at++;
    // A copy, because the body is freed.
    if (at < length) this.#lastPage = body.slice(0, length);
    return at === length;
  }

  merge(other: Labels): void {
    for (const kind of NAMES)
      for (const label of other.#kinds[kind].values()) this.#note(kind, label);
  }

  /** Length of the texts. */
  get length(): number {
    return NAMES.flatMap((kind) => [...this.#kinds[kind].values()]).reduce(
      (sum, { key, value }) => sum + key.length + value.length,
      0,
    );
  }

  get columns(): LabelColumns {
    const [users, anonymous, metadata, pages] = NAMES.map((kind) => this.#inOrder(kind));
    return {
      labels: {
        user: keys(users),
        anonymous: keys(anonymous),
        metadata: Object.fromEntries((metadata ?? []).map(({ key, value }) => [key, value])),
      },
      pages: keys(pages),
      dated_labels: Object.fromEntries(
        NAMES.map((kind) => [
          kind,
          this.#inOrder(kind).map(({ key, value, at }) => [key, value, at]),
        ]),
      ),
    };
  }

  #note(kind: LabelKind, label: Label): void {
    if (this.#hasBetter(kind, label)) return;
    const labels = this.#kinds[kind];
    labels.set(label.key, label);
    // A batch may have a hundred thousand of them.
    if (labels.size > 2 * KINDS[kind].max) this.#trim(kind);
  }

  /** Returns whether there is the same label, or another one with its key that counts instead. */
  #hasBetter(kind: LabelKind, label: Label): boolean {
    const known = this.#kinds[kind].get(label.key);
    if (known === undefined) return false;
    const isSame = known.at === label.at && known.value === label.value;
    return isSame || isNewer(known, label) === KINDS[kind].isNewer;
  }

  #trim(kind: LabelKind): void {
    const kept = this.#inOrder(kind);
    this.#kinds[kind].clear();
    for (const label of kept) this.#kinds[kind].set(label.key, label);
  }

  /** Returns the labels that are kept, in the order of their times. */
  #inOrder(kind: LabelKind): Label[] {
    const { isNewer: keepsNewest, max } = KINDS[kind];
    const labels = [...this.#kinds[kind].values()].toSorted((a, b) => (isNewer(a, b) ? 1 : -1));
    return keepsNewest ? labels.slice(-max) : labels.slice(0, max);
  }
}

/** Compares by time; at the same time by the texts, so that the order is always the same. */
function isNewer(a: Label, b: Label): boolean {
  if (a.at !== b.at) return a.at > b.at;
  return a.value === b.value ? a.key > b.key : a.value > b.value;
}

function keys(labels: Label[] = []): string[] {
  return labels.map(({ key }) => key);
}

function cut(text: string, max: number): string {
  // No more than may be kept, so that a long text takes no time.
  const storable = storableText(text.slice(0, 2 * (max + 1)));
  return longerThan(storable, max) ? Array.from(storable).slice(0, max).join("") : storable;
}
