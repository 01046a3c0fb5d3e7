// The real `gemmapod` command.

import { createRequire } from "node:module";
import { Child } from "./child.mjs";
import { STEP, within } from "./deadline.mjs";

/** Arguments that let node run a real client which needs WebRTC. */
export const WITH_WEBRTC = ["--import", new URL("./wrtc-hook.mjs", import.meta.url).href];

/** Arguments that make node the `gemmapod` command. */
export const CLI = [...WITH_WEBRTC, createRequire(import.meta.url).resolve("gemmapod")];

/** Runs one command to its end with `home` as its home; its output, when it succeeded. */
export async function gemmapod(home, ...args) {
  const command = new Child(`gemmapod ${args[0]}`, process.execPath, [...CLI, ...args], { env: { HOME: home } });
  try {
    const how = await within(STEP, `${command.name} to end`, command.exited);
    const output = command.lines.join("\n");
    if (how !== "exit code 0") throw new Error(`${command.name} ended (${how}):\n${output}`);
    return output;
  } finally {
    await command.stop();
  }
}
