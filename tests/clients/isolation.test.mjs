// What one pod can see of another in a real browser, for each `pods.isolation`; and that real clients chat in each.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { POD_ID, chat, servedPod } from "./lib/conversation.mjs";
import { STEP, within } from "./lib/deadline.mjs";
import { Host } from "./lib/host.mjs";
import { MODEL_LIBRARY_URLS, serveModelLibrary } from "./lib/model-library.mjs";
import { signPod } from "./lib/pod.mjs";
import { scenario } from "./lib/scene.mjs";

const DOMAIN = "pods.test";

/** The options of a broker, a browser and a host for each isolation. */
const MODES = {
  none: async () => ({ registry: "memory", args: ["--set", "pods.isolation=none"] }),
  sandbox: async () => ({ registry: "memory", args: ["--set", "pods.isolation=sandbox"] }),
  subdomain: async (scene) => {
    const folder = await scene.newFolder("authority");
    const ca = join(folder, "ca.pem");
    const tls = [`tls.domains=${DOMAIN},*.${DOMAIN},127.0.0.1`, "tls.mode=self-signed"];
    const settings = [...tls, "pods.isolation=subdomain", `pods.domain=${DOMAIN}`, `data_dir=${folder}`, "registry=memory"];
    const args = settings.flatMap((setting) => ["--set", setting]);
    const { stdout } = await promisify(execFile)(process.env.GEMMAPOD_SIGNAL_BIN, ["ca", ...args]);
    await writeFile(ca, stdout);
    return { args, ca, hosts: [DOMAIN, `*.${DOMAIN}`] };
  },
};

/** The URL that a visitor is given: by the broker's name, where it has one. */
function given(url, { hosts }) {
  return hosts ? url.replace("127.0.0.1", DOMAIN) : url;
}

for (const [mode, prepare] of Object.entries(MODES)) {
  scenario(`real clients chat unchanged with pods.isolation = "${mode}"`, async (scene) => {
    const options = await prepare(scene);
    const { broker, model, pod, browser, url } = await servedPod(scene, options);
    await Host.start(scene, { pod, model, ca: options.ca });
    assert.deepEqual((await broker.health()).origins, [POD_ID]);
    const visitor = await browser.visit(given(url, options));
    await chat(visitor, model, "Are you alone?");
    await chat(visitor, model, "And now?");
  });

  scenario(`the model in the browser starts with pods.isolation = "${mode}"`, async (scene) => {
    const options = await prepare(scene);
    const { broker, browser } = await servedPod(scene, options);
    const lonely = await signPod(await scene.newFolder("pod"), { podId: "lonely", signalUrl: broker.signalUrl, fallback: true });
    const { id: slug } = await broker.upload(lonely.htmlPath);
    const person = await browser.person();
    const asked = await serveModelLibrary(person);
    const page = await person.newPage();
    await within(STEP, "the pod to load", page.goto(given(`${broker.url}/${slug}`, options)));
    // By keyboard: the runtime lays its empty conversation over the button.
    const button = page.getByRole("button", { name: "Download and enable local model" });
    await within(STEP, "the pod to offer its model", button.press("Enter"));
    const outcome = page.getByText(/^(Local model ready|Runtime: error.*)$/).first();
    assert.equal(await within(STEP, "the model to load", outcome.innerText()), "Local model ready");
    assert.deepEqual(await within(STEP, "the page's violations", page.evaluate(() => window.violations)), []);
    assert.deepEqual([...asked].sort(), MODEL_LIBRARY_URLS);
  });

  scenario(`what one pod leaves, another reads only with pods.isolation = "none": here "${mode}"`, async (scene) => {
    const options = await prepare(scene);
    const { broker, browser, url } = await servedPod(scene, options);
    const other = await signPod(await scene.newFolder("pod"), { podId: "another", signalUrl: broker.signalUrl });
    const { id: slug } = await broker.upload(other.htmlPath);
    const person = await browser.person();
    const [first, second] = [await person.newPage(), await person.newPage()];
    await within(STEP, "the first pod to load", first.goto(given(url, options)));
    const otherUrl = given(`${broker.url}/${slug}`, options);
    await within(STEP, "the second pod to load", second.goto(otherUrl));

    const left = await within(STEP, "the first pod to leave something", first.evaluate(leave));
    const found = await within(STEP, "the second pod to look", second.evaluate(look));
    const seen = await within(STEP, "the first pod to look into a window of the second", first.evaluate(lookInto, otherUrl));

    // No mode lets a pod install a service worker: it is HTML, and a script for one would have to be a script.
    assert.equal(left.serviceWorker, "refused");
    if (mode === "none") {
      assert.deepEqual(left, { localStorage: "kept", cookie: "kept", indexedDB: "kept", serviceWorker: "refused" });
      assert.deepEqual(found, { localStorage: "secret", cookie: "secret", indexedDB: "secret", serviceWorkers: 0 });
      assert.equal(seen, "read", "the pods share an origin, so this test can tell");
    } else {
      const kept = mode === "sandbox" ? "refused" : "kept";
      assert.deepEqual(left, { localStorage: kept, cookie: kept, indexedDB: kept, serviceWorker: "refused" });
      const nothing = mode === "sandbox" ? "refused" : "nothing";
      const serviceWorkers = mode === "sandbox" ? "refused" : 0;
      assert.deepEqual(found, { localStorage: nothing, cookie: nothing, indexedDB: nothing, serviceWorkers });
      assert.equal(seen, "refused");
      // Its own storage is still there for a pod that has a host of its own.
      const again = await within(STEP, "the first pod to look", first.evaluate(look));
      assert.equal(again.localStorage, mode === "sandbox" ? "refused" : "secret");
    }
  });
}

/** Runs in a pod: leaves a secret wherever a page can. */
async function leave() {
  const attempt = async (action) => {
    try {
      await action();
      return "kept";
    } catch {
      return "refused";
    }
  };
  const database = () =>
    new Promise((resolve, reject) => {
      const opening = indexedDB.open("shared", 1);
      opening.onupgradeneeded = () => opening.result.createObjectStore("notes");
      opening.onerror = () => reject(opening.error);
      opening.onsuccess = () => {
        const writing = opening.result.transaction("notes", "readwrite");
        writing.objectStore("notes").put("secret", "note");
        writing.oncomplete = resolve;
        writing.onerror = reject;
      };
    });
  const worker = async () => {
    const urls = [location.pathname, URL.createObjectURL(new Blob(["1"], { type: "text/javascript" }))];
    await Promise.any(urls.map((url) => navigator.serviceWorker.register(url)));
  };
  return {
    localStorage: await attempt(() => localStorage.setItem("note", "secret")),
    cookie: await attempt(() => (document.cookie = "note=secret; max-age=1000")),
    indexedDB: await attempt(database),
    serviceWorker: await attempt(worker),
  };
}

/** Runs in a pod: looks for what another left. */
async function look() {
  const attempt = async (action) => {
    try {
      return (await action()) ?? "nothing";
    } catch {
      return "refused";
    }
  };
  const database = () =>
    new Promise((resolve, reject) => {
      const opening = indexedDB.open("shared", 1);
      opening.onupgradeneeded = () => opening.result.createObjectStore("notes");
      opening.onerror = () => reject(opening.error);
      opening.onsuccess = () => {
        const reading = opening.result.transaction("notes").objectStore("notes").get("note");
        reading.onsuccess = () => resolve(reading.result);
        reading.onerror = reject;
      };
    });
  return {
    localStorage: await attempt(() => localStorage.getItem("note")),
    cookie: await attempt(() => document.cookie.match(/note=(\w+)/)?.[1]),
    indexedDB: await attempt(database),
    serviceWorkers: await attempt(async () => (await navigator.serviceWorker.getRegistrations()).length),
  };
}

/** Runs in a pod: opens another in a window and reads its page. */
async function lookInto(url) {
  const opened = window.open(url);
  for (;;) {
    try {
      // Before it has loaded, it is still an empty page of this pod's own.
      if (opened.location.href !== "about:blank" && opened.document.querySelector("#pod")) return "read";
    } catch {
      return "refused";
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
