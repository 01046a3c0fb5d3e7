// A visitor without a browser: `visitor.mjs POD_URL QUESTION` opens a pod with the real shim's runtime, which verifies
// the manifest and negotiates with the origin, and prints the answer that came over the data channel.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { runInThisContext } from "node:vm";
import wrtc from "@roamhq/wrtc";
import { STEP, within } from "../lib/deadline.mjs";

const require = createRequire(import.meta.url);
const { GemmaPodCore } = require("@gemmapod/core/node");

const [url, question] = process.argv.slice(2);
console.log = console.error; // the answer is all that is printed

const page = await fetch(url);
if (!page.ok) throw new Error(`${url} answered ${page.status}`);
const signedManifestB64 = (await page.text()).match(/__GEMMAPOD_MANIFEST_B64 = "([^"]+)"/)[1];
const { name, model, transport } = GemmaPodCore.verifyManifest(Buffer.from(signedManifestB64, "base64"));

// What the runtime takes from a browser.
class RTCPeerConnection extends wrtc.RTCPeerConnection {
  constructor() {
    super({ iceServers: [] }); // no STUN server is reached from here
  }
}
const events = new EventTarget();
Object.assign(globalThis, { window: globalThis, RTCPeerConnection, dispatchEvent: (event) => events.dispatchEvent(event) });
runInThisContext(readFileSync(require.resolve("@gemmapod/shim/runtime"), "utf8"));

const { signal_url: signalUrl, pod_id: podId } = transport.dartc;
const pod = globalThis.GemmaPod.create({ name, model, signedManifestB64, transport: { dartc: { signalUrl, podId } } });
try {
  await within(STEP, "the pod to reach its origin", pod.connect());
  if (pod.transport.name !== "dartc") throw new Error(`the pod is connected over ${pod.transport.name}`);
  process.stdout.write(`${await within(STEP, "the answer", pod.chat.send(question))}\n`, () => process.exit());
} catch (error) {
  process.stderr.write(`${error.message}\n`, () => process.exit(1)); // its stack would show a line of 700 KB
}
