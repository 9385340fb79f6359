// Preloaded into a server: measures the CPU time of each turn of its event loop, and returns the
// longest since the last request. Uses CPU time, because other programs may delay a turn on a busy
// machine.
const TICK_MS = 1;

let longestMs = 0;
let before = process.threadCpuUsage();

setInterval(() => {
  const { user, system } = process.threadCpuUsage(before);
  longestMs = Math.max(longestMs, (user + system) / 1000);
  before = process.threadCpuUsage();
}, TICK_MS);

Bun.serve({
  unix: process.env["TURNS_SOCKET"] ?? "",
  fetch() {
    const answer = Response.json(longestMs);
    longestMs = 0;
    return answer;
  },
});
