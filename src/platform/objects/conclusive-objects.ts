import { DependencyAway } from "../errors.ts";
import { ObjectDamaged, ObjectMissing } from "./objects.ts";
import { WrappedObjects } from "./wrapped-objects.ts";

/**
 * Object store for commands that check it. A read gives the bytes, or says that the object is
 * missing or damaged, or that the store is away, as a DependencyAway. An object that cannot be read
 * while the store answers counts as damaged.
 */
export class ConclusiveObjects extends WrappedObjects {
  override async read(key: string, start: number, end: number): Promise<Uint8Array> {
    const read = async () => await super.read(key, start, end);
    try {
      return await read();
    } catch (error) {
      if (isLost(error)) throw error;
    }
    await super.ping().catch(rethrowAway);
    try {
      // Once more: the store may have come back since.
      return await read();
    } catch (error) {
      if (isLost(error)) throw error;
      await super.ping().catch(rethrowAway);
      throw new ObjectDamaged(messageOf(error), new Uint8Array(0), { cause: error });
    }
  }

  override async *list(
    prefix: string,
    after?: string,
  ): AsyncGenerator<{ key: string; bytes: number }> {
    try {
      yield* super.list(prefix, after);
    } catch (error) {
      rethrowAway(error);
    }
  }
}

export function rethrowAway(cause: unknown): never {
  throw new DependencyAway(`the object store is away: ${messageOf(cause)}`, { cause });
}

function isLost(error: unknown): boolean {
  return error instanceof ObjectMissing || error instanceof ObjectDamaged;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
