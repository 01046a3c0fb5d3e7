// The process that the real host lives in: `host-process.mjs MODEL_URL POD_FOLDER`; it ends when its stdin does.

import { Host } from "@gemmapod/host";

const [ollamaUrl, podFolder] = process.argv.slice(2);

const host = new Host({ ollamaUrl, headless: true });
await host.start();
await host.addPodFromDir(podFolder);

process.stdin.on("end", () => process.exit()).resume();
