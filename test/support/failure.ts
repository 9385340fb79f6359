import { codeOf } from "../../src/platform/errors.ts";

/** Returns the reason of a promise's rejection; undefined if it resolves. */
export async function failure(promise: PromiseLike<unknown>): Promise<unknown> {
  try {
    await promise;
    return undefined;
  } catch (error) {
    return error;
  }
}

/** Returns the code of the error that a promise is rejected with; "" if it resolves. */
export async function failureCode(promise: PromiseLike<unknown>): Promise<string> {
  return codeOf(await failure(promise));
}
