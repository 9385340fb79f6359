/** What every helper process of the bench does: say where it listens, and end with the bench however that ends. */
export function announce(port: number | undefined): void {
  if (process.send === undefined) process.stdout.write(`http://127.0.0.1:${port}\n`);
  else process.send({ port });
  process.on("disconnect", () => process.exit(0));
}
