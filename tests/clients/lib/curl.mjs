// HTTP to the broker through the real curl: it is one of the clients, and takes a private CA as an option.

import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { STEP } from "./deadline.mjs";

const run = promisify(execFile);
const BODY_LIMIT = 64 * 1024 * 1024;

/** The body of the reply as text; a status of 400 or more is an error that shows the body. */
export async function curl(url, { ca, args = [] } = {}) {
  const trust = ca ? ["--cacert", ca] : [];
  const hermetic = ["--disable", "--noproxy", "*"]; // neither the user's .curlrc nor a proxy
  const options = [...hermetic, "--silent", "--show-error", "--fail-with-body", "--max-time", String(STEP / 1000)];
  try {
    const { stdout } = await run("curl", [...options, ...trust, ...args, url], { maxBuffer: BODY_LIMIT });
    return stdout;
  } catch (error) {
    throw new Error(`curl ${url}: ${error.stderr?.trim()} ${error.stdout?.slice(0, 500)}`, { cause: error });
  }
}
