// The real clients against a broker: pods are built, uploaded, served and chatted with, as owners and visitors do it.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { Broker, DURABLE } from "./lib/broker.mjs";
import { gemmapod } from "./lib/cli.mjs";
import { POD_ID, chat, servedPod } from "./lib/conversation.mjs";
import { STEP, until } from "./lib/deadline.mjs";
import { Host } from "./lib/host.mjs";
import { Model } from "./lib/model.mjs";
import { draftPod } from "./lib/pod.mjs";
import { scenario } from "./lib/scene.mjs";
import { Browser } from "./lib/visitor.mjs";

const CROWD = 20;

for (const registry of ["memory", DURABLE]) {
  scenario(`a visitor chats with the origin of a pod, registry ${registry}`, async (scene) => {
    const { broker, model, pod, browser, url } = await servedPod(scene, { registry });
    await Host.start(scene, { pod, model });
    assert.deepEqual((await broker.health()).origins, [POD_ID]);
    await chat(await browser.visit(url), model, "Who are you?");
  });
}

scenario("a killed broker comes back with its pods, its origins come back by themselves", async (scene) => {
  const { broker, model, pod, slug, browser, url } = await servedPod(scene, { registry: DURABLE });
  const host = await Host.start(scene, { pod, model });
  const early = await browser.visit(url);
  await chat(early, model, "Is the broker up?");

  await broker.kill();
  await chat(early, model, "Do you need the broker now?");

  const since = host.lines.length;
  await broker.restart();
  await host.registered({ since });
  assert.equal(await broker.download(slug), await readFile(pod.htmlPath, "utf8"), "the pod is served as it was uploaded");
  await chat(await browser.visit(url), model, "Is the broker back?");
});

scenario("a browser takes a compressed pod for what it is", async (scene) => {
  const { model, pod, browser, url } = await servedPod(scene, { registry: DURABLE });
  await Host.start(scene, { pod, model });
  await until(STEP, "the pod to be compressed", async () => {
    const answer = await fetch(url);
    await answer.text();
    return answer.headers.get("content-encoding") === "gzip";
  });
  const visitor = await browser.visit(url);
  assert.equal(visitor.coding, "gzip");
  await chat(visitor, model, "Did you come in one piece?");
});

scenario(`${CROWD} visitors of one origin at the same time get each their own answer`, async (scene) => {
  const { model, pod, browser, url } = await servedPod(scene, { registry: "memory" });
  await Host.start(scene, { pod, model });
  const questions = Array.from({ length: CROWD }, (_, number) => `What is ${number} to you?`);
  const visitors = await Promise.all(questions.map(() => browser.visit(url)));
  await Promise.all(visitors.map((visitor, number) => chat(visitor, model, questions[number])));
  assert.deepEqual(model.questions.toSorted(), questions.toSorted());
});

// The CLI has no upload of its own: an owner posts the built file.
scenario("an owner with nothing but the CLI and curl builds, uploads, runs and stops a pod", async (scene) => {
  const broker = await Broker.start(scene, { registry: "memory" });
  const model = await Model.start(scene);
  const pod = await draftPod(await scene.newFolder("pod"), { podId: POD_ID, signalUrl: broker.signalUrl });
  await gemmapod(pod.folder, "rebuild", pod.folder);

  const record = await broker.upload(pod.htmlPath);
  assert.equal(record.url, `${broker.url}/${record.id}`);
  assert.equal(record.ownerPubkey, pod.ownerPubkey);

  const host = await Host.startByCli(scene, { pod, model });
  assert.match(await gemmapod(host.home, "status"), /✓ +Signal broker/);
  const browser = await Browser.start(scene);
  await chat(await browser.visit(record.url), model, "Who built you?");

  await host.end("SIGINT");
  await until(STEP, "the broker to notice that the origin left", async () => (await broker.health()).origins.length === 0);
});

scenario("a visitor of a pod whose origin is away is told so", async (scene) => {
  const { browser, url } = await servedPod(scene, { registry: "memory" });
  await assert.rejects(browser.visit(url), /the pod did not reach its origin: [^]*origin offline/);
});
