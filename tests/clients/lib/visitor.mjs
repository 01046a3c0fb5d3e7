// Visitors: pages of a real Chromium with a pod open, each with storage of its own.

import { chromium } from "playwright-core";
import { cleanEnvironment } from "./child.mjs";
import { STEP, within } from "./deadline.mjs";
import { trustInChromium } from "./trust.mjs";

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--disable-features=WebRtcHideLocalIpsWithMdns",
];

const ANSWERS = '#pod div[style*="align-self: flex-start"]';
const LAST_LINES = 25;

/** Chromium now and then crashes before it shows anything, which says nothing of the broker. */
async function launch(options, attempts = 3) {
  try {
    return await chromium.launch(options);
  } catch (error) {
    if (attempts === 1 || !error.message.includes("signal=SIGSEGV")) throw error;
    console.log("chromium crashed at its start, and is started again");
    return launch(options, attempts - 1);
  }
}

export class Browser {
  name = "browser";
  #chromium;
  #console = [];

  /** `ca` as in broker.mjs; `hosts` are names, also with asterisks, that lead to this machine. */
  static async start(scene, { ca, hosts = [] } = {}) {
    const browser = scene.add(new Browser());
    const home = await scene.newFolder("browser");
    if (ca) await trustInChromium(home, ca);
    const env = cleanEnvironment({ HOME: home });
    const here = hosts.map((host) => `MAP ${host} 127.0.0.1`).join(", ");
    const args = here ? [...FLAGS, `--host-resolver-rules=${here}`] : FLAGS;
    browser.#chromium = await launch({ executablePath: "/usr/bin/chromium", args, env, timeout: STEP });
    return browser;
  }

  /** Opens the pod at `url` as a new visitor and waits until it is connected with its origin. */
  async visit(url) {
    const context = await this.#chromium.newContext();
    const page = await context.newPage();
    page.setDefaultTimeout(0); // the deadlines are this file's own
    page.on("console", (message) => this.#console.push(message.text()));
    page.on("pageerror", (error) => this.#console.push(error.message));
    await page.addInitScript(keepChannelFrames);
    const visitor = new Visitor(page);
    await visitor.open(url);
    return visitor;
  }

  /** What one person's browser is: pages opened in it share what browsers let them share. */
  person() {
    return this.#chromium.newContext();
  }

  async stop() {
    await this.#chromium?.close();
  }

  evidence() {
    return this.#console.slice(-LAST_LINES);
  }
}

class Visitor {
  /** The `Content-Encoding` that the pod came with. */
  coding;
  #page;
  #input;

  constructor(page) {
    this.#page = page;
    this.#input = page.getByPlaceholder("Ask the pod…");
  }

  async open(url) {
    const refusal = this.#page.getByText(/^(Owner origin is not reachable|gemmapod refused to mount)/);
    const response = await this.#step(`${url} to load`, this.#page.goto(url));
    if (!response.ok()) throw new Error(`${url} answered ${response.status()}`);
    this.coding = response.headers()["content-encoding"];
    await this.#step("the pod to reach its origin", this.#input.or(refusal).waitFor());
    if (await refusal.isVisible()) throw new Error(`the pod did not reach its origin: ${await refusal.locator("..").innerText()}`);
  }

  /**
   * Types a question and waits for the whole answer: what the page shows, and what came over the data
   * channel, which are two views of the same thing unless the answer took another way.
   */
  async ask(question) {
    const before = await this.#page.locator(ANSWERS).count();
    await this.#page.evaluate(() => window.channelFrames.splice(0));
    await this.#step("the input to take a question", this.#type(question));
    const answered = this.#page.waitForFunction(wholeAnswerShown, { answers: ANSWERS, before }, { polling: 100 });
    await this.#step(`an answer to "${question}"`, answered);
    return {
      shown: await this.#page.locator(ANSWERS).last().innerText(),
      overDataChannel: deltas(await this.#page.evaluate(() => window.channelFrames)),
    };
  }

  async #type(question) {
    await this.#input.click();
    await this.#input.fill(question);
    await this.#input.press("Enter");
  }

  async #step(awaited, action) {
    try {
      return await within(STEP, awaited, action);
    } catch (error) {
      const page = await within(STEP, "the page's text", this.#page.innerText("body")).catch(({ message }) => message);
      throw new Error(`${error.message}; the page shows:\n${page}`, { cause: error });
    }
  }
}

/** Runs in the page, before the pod: keeps what arrives on every data channel that the pod opens. */
function keepChannelFrames() {
  window.channelFrames = [];
  const { createDataChannel } = RTCPeerConnection.prototype;
  RTCPeerConnection.prototype.createDataChannel = function (...args) {
    const channel = createDataChannel.apply(this, args);
    channel.addEventListener("message", ({ data }) => window.channelFrames.push(data));
    return channel;
  };
}

/** Runs in the page: the widget shows one more answer and takes input again, as it does once the answer's stream has ended. */
function wholeAnswerShown({ answers, before }) {
  return document.querySelectorAll(answers).length > before && !document.querySelector("#pod input").disabled;
}

/** The text that the origin streamed in these frames. */
function deltas(frames) {
  return frames
    .map((frame) => JSON.parse(frame))
    .filter((envelope) => envelope.topic === "gemmapod.chat.delta")
    .map((envelope) => envelope.payload.delta)
    .join("");
}
