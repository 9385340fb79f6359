export type ReadOptions = {
  /** The first byte and the byte after the last one, for files whose length is known. */
  start?: number;
  end?: number;
  /** Omits what is lost instead of throwing Lost. The file then has another length. */
  skipMissing?: boolean;
};

/** File that a player of recorded sessions reads, composed whenever it is read. */
export type ReplayFile = {
  name: string;
  /** Undefined if only reading the file tells its length. */
  bytes: number | undefined;
  /** Text that differs for another content. */
  tag: string;
  read: (options?: ReadOptions) => AsyncGenerator<Uint8Array>;
};
