import { InvalidArgumentError } from "commander";

/** Returns a parser of arguments that must be whole numbers. */
export function wholeNumber(least: number, most: number) {
  return (text: string): number => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < least || value > most)
      throw new InvalidArgumentError(`not a whole number from ${least} to ${most}`);
    return value;
  };
}
