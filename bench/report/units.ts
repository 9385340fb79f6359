/** Formats figures for tables with at most three digits: a shared machine cannot repeat more. */

export function ms(value: number): string {
  return `${value < 10 ? value.toFixed(2) : value.toFixed(value < 100 ? 1 : 0)} ms`;
}

/** Formats CPU time per second. */
export function msPerSecond(value: number): string {
  return `${value.toFixed(2)} ms/s`;
}

export function microseconds(value: number): string {
  return `${value.toFixed(value < 100 ? 1 : 0)} µs`;
}

export function perSecond(value: number): string {
  return `${Math.round(value).toLocaleString("en-US")}/s`;
}

export function times(value: number): string {
  return `${value.toFixed(value < 1 ? 3 : 2)}×`;
}

export function percent(value: number, digits = 1): string {
  return `${(value * 100).toFixed(digits)} %`;
}

export function mib(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(bytes < 100 * 2 ** 20 ? 1 : 0)} MiB`;
}

/** Formats bytes per second. */
export function megabytes(bytesPerSecond: number): string {
  return `${(bytesPerSecond / 1e6).toFixed(bytesPerSecond < 100e6 ? 1 : 0)} MB/s`;
}

export function gigabytes(bytesPerSecond: number): string {
  return `${(bytesPerSecond / 1e9).toFixed(2)} GB/s`;
}

export function kib(bytes: number): string {
  return `${(bytes / 1024).toFixed(0)} KiB`;
}

export function count(value: number): string {
  return Math.round(value).toLocaleString("en-US");
}

/** Returns a dash for a figure that was not measured. */
export function or(value: number | undefined, show: (value: number) => string): string {
  return value === undefined || !Number.isFinite(value) ? "–" : show(value);
}

/** Formats sizes of a few KiB, with two decimals. */
export function fineKib(bytes: number): string {
  return `${(bytes / 1024).toFixed(bytes < 100 * 1024 ? 2 : 0)} KiB`;
}

export function seconds(value: number): string {
  return `${value.toFixed(value < 10 ? 1 : 0)} s`;
}
