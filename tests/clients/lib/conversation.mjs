// What all cases are about: a pod that is served, and a visitor who talks to it.

import assert from "node:assert/strict";
import { Broker } from "./broker.mjs";
import { Model } from "./model.mjs";
import { signPod } from "./pod.mjs";
import { Browser } from "./visitor.mjs";

export const POD_ID = "tested-pod";

/** A broker that serves a pod, and a browser and a model for it: all that a conversation needs but the host. */
export async function servedPod(scene, options) {
  const broker = await Broker.start(scene, options);
  const pod = await signPod(await scene.newFolder("pod"), { podId: POD_ID, signalUrl: broker.signalUrl });
  const { id: slug } = await broker.upload(pod.htmlPath);
  const [model, browser] = await Promise.all([Model.start(scene), Browser.start(scene, options)]);
  return { broker, model, pod, slug, browser, url: `${broker.url}/${slug}` };
}

/** Asks `question` and checks that the answer is this model's answer to it, and came over the data channel. */
export async function chat(visitor, model, question) {
  const answer = model.answerTo(question);
  assert.deepEqual(await visitor.ask(question), { shown: answer, overDataChannel: answer });
}
