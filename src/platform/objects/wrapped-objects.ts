import { type ObjectStore } from "./objects.ts";

/** Object store that forwards to another one; subclasses override what they add to. */
export abstract class WrappedObjects implements ObjectStore {
  readonly link: ObjectStore["link"];
  protected readonly inner: ObjectStore;

  constructor(inner: ObjectStore) {
    this.inner = inner;
    this.link = inner.link?.bind(inner);
  }

  get name(): string {
    return this.inner.name;
  }

  get freePuts(): boolean {
    return this.inner.freePuts;
  }

  async put(key: string, body: Uint8Array, signal?: AbortSignal): Promise<void> {
    await this.inner.put(key, body, signal);
  }

  async upload(
    key: string,
    chunks: AsyncIterable<Uint8Array>,
    signal?: AbortSignal,
  ): Promise<void> {
    await this.inner.upload(key, chunks, signal);
  }

  async read(key: string, start: number, end: number, signal?: AbortSignal): Promise<Uint8Array> {
    return await this.inner.read(key, start, end, signal);
  }

  async body(
    key: string,
    start: number,
    end: number,
  ): Promise<Blob | ReadableStream<Uint8Array<ArrayBuffer>>> {
    return await this.inner.body(key, start, end);
  }

  async remove(key: string): Promise<void> {
    await this.inner.remove(key);
  }

  list(prefix: string, after?: string): AsyncIterable<{ key: string; bytes: number }> {
    return this.inner.list(prefix, after);
  }

  async ping(signal?: AbortSignal): Promise<void> {
    await this.inner.ping(signal);
  }

  async probe(signal?: AbortSignal): Promise<void> {
    await this.inner.probe(signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.inner[Symbol.asyncDispose]();
  }
}
