// The owner's daemon: the real host in a process of its own, with a scratch folder for a home.

import { fileURLToPath } from "node:url";
import { Child } from "./child.mjs";
import { CLI, WITH_WEBRTC } from "./cli.mjs";

const PROGRAM = fileURLToPath(new URL("./host-process.mjs", import.meta.url));

export class Host extends Child {
  /** Serves one pod with the host package and waits until the broker has accepted it; `ca` as in broker.mjs. */
  static async start(scene, options) {
    const host = await Host.launch(scene, options);
    await host.registered();
    return host;
  }

  /** The same without waiting. */
  static launch(scene, { pod, model, ca }) {
    return Host.#launch(scene, pod, ca, [...WITH_WEBRTC, PROGRAM, model.url, pod.folder]);
  }

  /** The same through the owner's command, `gemmapod run`. */
  static async startByCli(scene, { pod, model, ca }) {
    const host = await Host.#launch(scene, pod, ca, [...CLI, "run", pod.folder, "--provider-url", model.url]);
    await host.registered();
    return host;
  }

  static async #launch(scene, pod, ca, args) {
    const home = await scene.newFolder("host");
    const env = { HOME: home, ...(ca && { NODE_EXTRA_CA_CERTS: ca }) };
    const host = scene.add(new Host("host", process.execPath, args, { env }));
    host.home = home;
    host.podId = pod.podId;
    return host;
  }

  /** Waits until the broker tells the host, after line `since` of its log, that it holds the pod. */
  registered({ since } = {}) {
    const told = new RegExp(`^\\[host\\] registered for pod ${this.podId}$`);
    return this.waitForLine(told, `the host to register pod ${this.podId}`, { since });
  }
}
