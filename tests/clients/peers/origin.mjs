// An origin without a browser or a keyboard: `origin.mjs FOLDER SECRET` runs the real host for the pod in FOLDER, and a
// model whose answers whoever knows SECRET can foretell.

import { Host } from "@gemmapod/host";
import { Model } from "../lib/model.mjs";

const [folder, secret] = process.argv.slice(2);

const model = new Model(secret);
await model.listen();
const host = new Host({ ollamaUrl: model.url, headless: true });
await host.start();
await host.addPodFromDir(folder);
