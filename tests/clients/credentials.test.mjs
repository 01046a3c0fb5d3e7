// Real hosts with credentials, which the reference does not have.

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import WebSocket from "ws";
import { command, DURABLE } from "./lib/broker.mjs";
import { chat, POD_ID, servedPod } from "./lib/conversation.mjs";
import { STEP, within } from "./lib/deadline.mjs";
import { Host } from "./lib/host.mjs";
import { draftPod } from "./lib/pod.mjs";
import { scenario } from "./lib/scene.mjs";
import { signedCommand } from "./lib/signed.mjs";

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

/** The pod's folder as a host has it: with the lines that `credentials add` prints in its pod.toml. */
async function withCredential(scene, broker, pod, name) {
  const printed = await signedCommand(
    "credentials", "add", "--name", name, "--key", pod.keyPath, "--broker", broker.url,
  );
  const [, line] = printed.match(/^\[transport\.dartc\]\n(signal_url = "ws:\/\/\w+:[\w-]{43}@.*")$/);
  const folder = await scene.newFolder("host-pod");
  const toml = await readFile(pod.tomlPath, "utf8");
  await writeFile(join(folder, "pod.toml"), toml.replace(/^signal_url = .*$/m, line));
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
