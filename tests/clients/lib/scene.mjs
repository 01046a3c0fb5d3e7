// One test's stage: what it starts ends with it, in reverse order, and speaks up when it fails.

import { rmSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { stripVTControlCharacters } from "node:util";
import { within } from "./deadline.mjs";

const WHOLE_TEST = 180_000;

const folders = new Set();
process.on("exit", () => folders.forEach(removeFolder)); // when a signal ends the tests half-way

/** Declares a test whose body gets a fresh scene; `{ skip }` before it is why it cannot run here, if so. */
export function scenario(name, ...rest) {
  const [body, { skip } = {}] = rest.toReversed();
  test(name, { skip }, async () => {
    const scene = await Scene.open();
    const failures = [];
    await within(WHOLE_TEST, "the whole test", body(scene)).catch((error) => failures.push(error));
    const evidence = scene.evidence();
    await scene.close().catch((error) => failures.push(error));
    if (failures.length) {
      const report = [...failures.map((error) => error.message), evidence].join("\n");
      throw new Error(stripVTControlCharacters(report), { cause: failures[0] });
    }
  });
}

class Scene {
  #actors = [];
  #folder;

  static async open() {
    const scene = new Scene();
    scene.#folder = await mkdtemp(join(tmpdir(), "gemmapod-clients-"));
    folders.add(scene.#folder);
    return scene;
  }

  /** Takes charge of `actor`: `{ name, stop(), evidence() }`, the last being lines to show when the test fails. */
  add(actor) {
    this.#actors.push(actor);
    return actor;
  }

  /** A new folder that goes when the scene does. */
  newFolder(name) {
    return mkdtemp(join(this.#folder, `${name}-`));
  }

  evidence() {
    return this.#actors
      .map((actor) => [`--- last lines of ${actor.name}`, ...actor.evidence()].join("\n    "))
      .join("\n");
  }

  async close() {
    const endings = [];
    for (const actor of this.#actors.toReversed()) {
      endings.push(...(await Promise.allSettled([actor.stop()])));
    }
    removeFolder(this.#folder);
    const failed = endings.filter((ending) => ending.status === "rejected").map((ending) => ending.reason.message);
    if (failed.length) throw new Error(failed.join("\n"));
  }
}

function removeFolder(folder) {
  rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
  folders.delete(folder);
}
