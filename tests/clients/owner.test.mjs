// What the reference does not have: pods of an owner, and hosts that leave one another alone.

import assert from "node:assert/strict";
import { Broker } from "./lib/broker.mjs";
import { Host } from "./lib/host.mjs";
import { Model } from "./lib/model.mjs";
import { signPod } from "./lib/pod.mjs";
import { scenario } from "./lib/scene.mjs";
import { signedCommand } from "./lib/signed.mjs";
import { Browser } from "./lib/visitor.mjs";

const POD_ID = "tested-pod";

scenario("the key file of the CLI replaces, lists and deletes a pod that the CLI built", async (scene) => {
  const broker = await Broker.start(scene, { registry: "memory" });
  const pod = await signPod(await scene.newFolder("pod"), { podId: POD_ID, signalUrl: broker.signalUrl });
  const pods = (...args) => signedCommand("pods", ...args, "--key", pod.keyPath, "--broker", broker.url);
  const url = await pods("put", pod.htmlPath);
  const slug = url.split("/").at(-1);
  assert.equal(JSON.parse(await broker.meta(slug)).ownerPubkey, pod.ownerPubkey);
  assert.match(await pods("list"), new RegExp(`^${slug} .*Pod ${POD_ID}$`));
  assert.equal(await pods("put", pod.htmlPath, "--slug", slug), url);
  assert.equal(await pods("delete", slug), `deleted ${slug}`);
  assert.equal(await pods("list"), "");
});

scenario("a second host of the same pod does not disturb the first, and follows it when it ends", async (scene) => {
  const broker = await Broker.start(scene, { registry: "memory" });
  const pod = await signPod(await scene.newFolder("pod"), { podId: POD_ID, signalUrl: broker.signalUrl });
  const { id: slug } = await broker.upload(pod.htmlPath);
  const [model, browser] = await Promise.all([Model.start(scene), Browser.start(scene)]);
  const first = await Host.start(scene, { pod, model });
  const second = await Host.launch(scene, { pod, model });
  await second.waitForLine(/pod id is held/, "the second host to be told that the pod id is held");

  const question = "Are you still the first?";
  const answer = model.answerTo(question);
  const visitor = await browser.visit(`${broker.url}/${slug}`);
  assert.deepEqual(await visitor.ask(question), { shown: answer, overDataChannel: answer });
  assert.equal(first.lines.filter((line) => /registered for pod/.test(line)).length, 1, "it was never replaced");

  await first.end("SIGTERM");
  await second.registered();
});
