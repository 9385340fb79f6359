/** Tells the bench the port of this helper process, and ends the process when the bench ends. */
export function announce(port: number | undefined): void {
  if (process.send === undefined) process.stdout.write(`http://127.0.0.1:${port}\n`);
  else process.send({ port });
  process.on("disconnect", () => process.exit(0));
}
