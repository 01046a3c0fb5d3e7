// Builds a signed pod and uploads it: `pod.mjs FOLDER POD_ID BROKER_URL` prints the record that the broker answers with.

import { mkdir, readFile } from "node:fs/promises";
import { signPod } from "../lib/pod.mjs";

const [folder, podId, broker] = process.argv.slice(2);

await mkdir(folder, { recursive: true });
const pod = await signPod(folder, { podId, signalUrl: `${broker.replace(/^http/, "ws")}/signal` });
const answer = await fetch(`${broker}/pods`, {
  method: "POST",
  headers: { "content-type": "text/html" },
  body: await readFile(pod.htmlPath),
});
const text = await answer.text();
if (!answer.ok) throw new Error(`${broker} answered ${answer.status}: ${text}`);
console.log(text);
