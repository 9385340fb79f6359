/** Colours on light and on dark paper, told apart also by people who do not see red or green. */
export const COLOURS = {
  blue: { light: "#2a78d6", dark: "#3987e5" },
  aqua: { light: "#1baf7a", dark: "#199e70" },
  violet: { light: "#4a3aa7", dark: "#9085e9" },
  orange: { light: "#eb6834", dark: "#d95926" },
  yellow: { light: "#eda100", dark: "#c98500" },
  magenta: { light: "#e87ba4", dark: "#d55181" },
  red: { light: "#d03b3b", dark: "#e66767" },
  grey: { light: "#898781", dark: "#898781" },
  silver: { light: "#b9b7b0", dark: "#605f5a" },
} as const;

export type Colour = keyof typeof COLOURS;

/**
 * Colour of each series in every panel and plot: blue, aqua and violet are Floodgate, grey and
 * silver bare Bun, orange and yellow the simple implementations.
 */
export const SERIES = {
  files: "blue",
  s3: "aqua",
  web: "violet",
  floor: "grey",
  onePut: "orange",
  onePutTuned: "yellow",
  formDataFiles: "orange",
  formDataS3: "yellow",
  webSocket: "blue",
  sse: "aqua",
  bareWebSocket: "grey",
  bareSse: "silver",
  checkOfDevice: "violet",
  storePut: "magenta",
  refused: "red",
  overload: "violet",
  server: "blue",
} as const satisfies Record<string, Colour>;

export type Series = keyof typeof SERIES;
