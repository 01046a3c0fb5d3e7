// The broker's own commands that send signed requests.

import { setTimeout as pause } from "node:timers/promises";
import { command } from "./broker.mjs";

/** The output of a command, once the broker has been up for long enough to take signed requests. */
export async function signedCommand(...args) {
  for (;;) {
    try {
      return (await command(...args)).trim();
    } catch (error) {
      if (!/before the broker was up/.test(error.stderr ?? "")) throw error;
      await pause(500);
    }
  }
}
