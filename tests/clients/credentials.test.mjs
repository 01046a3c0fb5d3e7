// Real hosts with credentials, which the reference does not have.

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import WebSocket from "ws";
import { command, DURABLE } from "./lib/broker.mjs";
import { chat, POD_ID, servedPod } from "./lib/conversation.mjs";
import { STEP, within } from "./lib/deadline.mjs";
import { Host } from "./lib/host.mjs";
import { Model } from "./lib/model.mjs";
import { draftPod } from "./lib/pod.mjs";
import { CountingProxy } from "./lib/proxy.mjs";
import { scenario } from "./lib/scene.mjs";
import { signedCommand } from "./lib/signed.mjs";

// How often the first host is asked, over some ten seconds.
const ROUNDS = 6;

scenario("a host with a credential keeps its pod from everybody, and both sides come back", async (scene) => {
  const { broker, model, pod, browser, url } = await servedPod(scene, { registry: DURABLE });
  const home = await withCredential(scene, broker, pod, "home");
  let host = await Host.start(scene, { pod: home, model });
  await chat(await browser.visit(url), model, "Are you at home?");
  await refusesEverybodyElse(scene, broker, pod, model);

  // The broker ends and comes back, then dies and comes back: the host registers again by itself.
  for (const end of [() => broker.stop(), () => broker.kill()]) {
    const since = host.lines.length;
    await end();
    await broker.restart();
    await host.registered({ since });
  }
  await chat(await browser.visit(url), model, "Are you back?");

  // Nobody takes the pod while its host is away.
  await host.end("SIGTERM");
  await refusesEverybodyElse(scene, broker, pod, model);
  host = await Host.start(scene, { pod: home, model });
  await chat(await browser.visit(url), model, "Have you moved in again?");

  // A revoked host is told so.
  const since = host.lines.length;
  await signedCommand("credentials", "revoke", "home", "--key", pod.keyPath, "--broker", broker.url);
  await host.waitForLine(/was revoked by its owner/, "the host to be told of the revocation", { since });
  await host.waitForLine(/credential is unknown or revoked/, "the host to be refused", { since });
  assert.deepEqual((await broker.health()).origins, []);
});

// Hosts of one owner on two machines, as for a reserve.
scenario("of two hosts with one credential the second stands by, and serves once the first dies", async (scene) => {
  const { broker, pod, browser, url, models, proxy } = await stageForTwo(scene);
  const home = await withCredential(scene, broker, pod, "home", proxy.host);
  const first = await Host.start(scene, { pod: home, model: models[0] });
  const second = await Host.launch(scene, { pod: home, model: models[1] });

  // Each ping asks the first whether it is there: first as the second registers, then once in a round.
  await proxy.pinged(ROUNDS);
  assert.equal(proxy.connections, 2, "nobody reconnects");
  const registrations = (host) => host.lines.filter((line) => /registered for pod/.test(line)).length;
  assert.deepEqual([first, second].map(registrations), [1, 0]);
  assert.equal(broker.lines.filter((line) => /origin registered/.test(line)).length, 1);
  await chat(await browser.visit(url), models[0], "Who is at home?");

  const died = performance.now();
  await first.end("SIGKILL");
  const sinceThen = () => `${Math.round(performance.now() - died)} ms`;
  const visit = async () => chat(await browser.visit(url), models[1], "And now?");
  const [tookOver, answered] = await Promise.all([second.registered(), visit()].map((done) => done.then(sinceThen)));
  console.log(`after its first host died, a pod had the second after ${tookOver} and an answer after ${answered}`);

  // The one that died stands by in its turn.
  await Host.launch(scene, { pod: home, model: models[0] });
  await proxy.pinged(2);
  await chat(await browser.visit(url), models[1], "Still there?");
  assert.equal(proxy.connections, 3, "nobody reconnects");
});

/** A served pod whose broker asks holders every two seconds, a proxy before the broker, and models for two hosts. */
async function stageForTwo(scene) {
  const file = join(await scene.newFolder("config"), "signal.toml");
  await writeFile(file, '[signal]\ntakeover_timeout = "2s"\n');
  const { model, ...stage } = await servedPod(scene, { registry: DURABLE, args: ["--config", file] });
  const [proxy, other] = await Promise.all([CountingProxy.start(scene, stage.broker), Model.start(scene)]);
  return { ...stage, models: [model, other], proxy };
}

/** The pod's folder as a host has it: with the line that `credentials add` prints in its pod.toml; by way of `host`, if given. */
async function withCredential(scene, broker, pod, name, host = new URL(broker.url).host) {
  const printed = await signedCommand(
    "credentials", "add", "--name", name, "--key", pod.keyPath, "--broker", broker.url,
  );
  const [, line] = printed.match(/^(signal_url = "ws:\/\/\w+:[\w-]{43}@.*")$/);
  const folder = await scene.newFolder("host-pod");
  const toml = await readFile(pod.tomlPath, "utf8");
  await writeFile(join(folder, "pod.toml"), toml.replace(/^signal_url = .*$/m, line.replace(new URL(broker.url).host, host)));
  return { ...pod, folder };
}

/** A host without a credential, one with another key's, and a client with another key's token. */
async function refusesEverybodyElse(scene, broker, pod, model) {
  const stranger = await draftPod(await scene.newFolder("stranger"), { podId: POD_ID, signalUrl: broker.signalUrl });
  const theirs = await withCredential(scene, broker, stranger, "theirs");
  for (const taker of [pod, theirs]) {
    const host = await Host.launch(scene, { pod: taker, model });
    await host.waitForLine(/cloud error: .*(belongs to|is held)/, "the other host to be refused");
    assert.ok(!host.lines.some((line) => /registered for pod/.test(line)));
    await host.end("SIGTERM");
  }
  const token = await command("token", "--key", stranger.keyPath, "--pod-id", POD_ID, "--broker", broker.url);
  const told = await firstAnswer(broker, { t: "register", podId: POD_ID, ownerToken: token.trim() });
  assert.match(told.message ?? told.t, /belongs to|is held/);
}

/** What the broker says to a frame, on a socket of its own. */
async function firstAnswer(broker, frame) {
  const socket = new WebSocket(broker.signalUrl);
  try {
    const answered = new Promise((resolve, reject) => {
      socket.on("open", () => socket.send(JSON.stringify(frame)));
      socket.on("message", (text) => resolve(JSON.parse(text)));
      socket.on("error", reject);
    });
    return await within(STEP, `the broker to answer ${frame.t}`, answered);
  } finally {
    socket.close();
  }
}
