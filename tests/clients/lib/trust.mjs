// Makes Chromium trust a private certificate authority, by way of the NSS store in its home.

import { execFile } from "node:child_process";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

export async function trustInChromium(home, caFile) {
  const folder = join(home, ".pki", "nssdb");
  await mkdir(folder, { recursive: true });
  const store = ["-d", `sql:${folder}`];
  await run("certutil", ["-N", ...store, "--empty-password"]);
  await run("certutil", ["-A", ...store, "-n", "authority under test", "-t", "C,,", "-i", caFile]);
}
