import { objectOf } from "./answers.ts";
import { eventually } from "./eventually.ts";

/** Waits until the server hears other processes: it listens before that. */
export async function untilBusIsUp(url: string): Promise<void> {
  await eventually("the bus is up", async () => {
    const { status } = await objectOf(fetch(new URL("/readyz", url)));
    return status === "ok";
  });
}
