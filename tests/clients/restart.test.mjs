// A restart of the broker while visitors open a pod, with the real host and the real shim.

import assert from "node:assert/strict";
import { DURABLE, NO_SOCKET_UNIT } from "./lib/broker.mjs";
import { chat, servedPod } from "./lib/conversation.mjs";
import { Host } from "./lib/host.mjs";
import { scenario } from "./lib/scene.mjs";

const CROWD = 20;
const questions = Array.from({ length: CROWD }, (_, number) => `Did you notice, ${number}?`);

// While nobody listens, a browser is refused before the broker can do anything: people reload then.
const NOBODY_LISTENS = /ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|ERR_SOCKET_NOT_CONNECTED|signaling socket error/;
// A stopping broker gives up connections on which nothing came for 2 s once its sockets are closed. A page that a busy
// machine asks for later than that is not loaded; one that is loaded must reach its host.
const TOO_BUSY = /page\.goto: net::ERR_SOCKET_NOT_CONNECTED/;

for (const [how, options, reloadable] of [
  ["with a socket unit", { socketUnit: true }, TOO_BUSY],
  ["without a socket unit, where visitors reload while nobody listens", {}, NOBODY_LISTENS],
]) {
  const skip = options.socketUnit && NO_SOCKET_UNIT;
  scenario(`a restart under ${CROWD} visitors ${how}: all chat`, { skip }, async (scene) => {
    const { model, browser, url, restart } = await stage(scene, options);
    let reloads = 0;
    const visits = questions.map(async (question) => {
      for (;;) {
        try {
          return await chat(await browser.visit(url), model, question);
        } catch (error) {
          if (!reloadable.test(error.message)) throw error;
          reloads += 1;
        }
      }
    });
    await Promise.all([...visits, restart()]);
    assert.deepEqual(model.questions.toSorted(), questions.toSorted());
    console.log(`${CROWD} visitors over a restart ${how}: ${reloads} reloads`);
  });
}

/** A served pod with its host, and a restart that comes when the first visitor's offer has reached the host. */
async function stage(scene, options) {
  const { broker, model, pod, browser, url } = await servedPod(scene, { registry: DURABLE, ...options });
  const host = await Host.start(scene, { pod, model });
  const restart = async () => {
    await host.waitForLine(/^\[host\] offer session=/, "the first offer to reach the host");
    await broker.stopAndStart();
  };
  return { model, browser, url, restart };
}
