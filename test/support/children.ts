import { readdir, readFile } from "node:fs/promises";

type Process = { pid: number; command: string };

/** Lists the processes that `start` keeps, with their commands. */
export async function childrenOf(parent: number): Promise<Process[]> {
  const found: Process[] = [];
  for (const pid of (await readdir("/proc")).map(Number)) {
    if (!Number.isInteger(pid)) continue;
    const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
    const [state, ppid] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    if (Number(ppid) !== parent || state === "Z") continue;
    const line = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    const command = line.split("\0").find((word) => word === "serve" || word === "work");
    if (command !== undefined) found.push({ pid, command });
  }
  return found;
}

export async function pidsOf(parent: number, command: string): Promise<number[]> {
  return (await childrenOf(parent)).filter((one) => one.command === command).map(({ pid }) => pid);
}
