// A pod's folder as the CLI lays it out: pod.toml, owner.key and the signed agent.html.

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { buildPod, keygenToFile } from "gemmapod/dist/lib/buildPod.js";

/** Writes pod.toml and owner.key, the two files that an owner starts from. */
export async function draftPod(folder, { podId, signalUrl, fallback }) {
  const pod = {
    podId,
    folder,
    tomlPath: join(folder, "pod.toml"),
    keyPath: join(folder, "owner.key"),
    htmlPath: join(folder, "agent.html"),
  };
  await writeFile(pod.tomlPath, podToml(podId, signalUrl) + (fallback ? FALLBACK : ""));
  pod.ownerPubkey = (await keygenToFile(pod.keyPath)).publicKey;
  return pod;
}

/** A drafted pod, built and signed by the CLI's own library. */
export async function signPod(folder, options) {
  const pod = await draftPod(folder, options);
  await buildPod({ podTomlPath: pod.tomlPath, keyPath: pod.keyPath, outPath: pod.htmlPath });
  return pod;
}

// The model in the visitor's browser, for pods whose origin is not there.
const FALLBACK = `
[transport.fallback]
`;

// Only the data channel is declared as a transport: a visitor without it gets no answer at all.
function podToml(podId, signalUrl) {
  return `name = "Pod ${podId}"
persona = "Answers visitors in a test."
system_prompt = "Answer the visitor."
model = "echo"

[transport]
preferred = ["dartc"]

[transport.dartc]
signal_url = "${signalUrl}"
pod_id = "${podId}"
`;
}
