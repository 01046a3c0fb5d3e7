// The broker under test: the binary that GEMMAPOD_SIGNAL_BIN names, or the reference from npm.

import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, isAbsolute, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Child, cleanEnvironment } from "./child.mjs";
import { curl } from "./curl.mjs";
import { freePort } from "./ports.mjs";

const run = promisify(execFile);

const LISTENING = /listening on (https?:\/\/[^\s/]+:\d+)/;

const underTest = chooseBroker();

/** The registry whose pods outlive the process. */
export const DURABLE = underTest.durable;

/** Why the broker under test cannot be asked for TLS, if it cannot. */
export const NO_TLS = underTest.noTls;

/** Why the broker under test cannot be handed a listening socket, if it cannot. */
export const NO_SOCKET_UNIT = underTest.noTls && "the reference takes no listening socket";

const SOCKET_UNIT = fileURLToPath(new URL("./socket-unit.py", import.meta.url));

/** The output of one of its commands. */
export async function command(...args) {
  const { stdout } = await run(underTest.command, [...underTest.args, ...args], { env: cleanEnvironment() });
  return stdout;
}

export class Broker {
  name = "broker";
  #lives = []; // one process for each start
  #args;
  #folder;
  #hostName;
  #socketUnit = false;

  /**
   * `args` are flags of the broker's own, such as `--config FILE`; `ca` is the file of the private
   * authority that signed its certificate, when it speaks https; `name` is the host name that the
   * certificate is for, where that is not the address in the log line; `ready` is a line of the log
   * to wait for, where listening is not enough. With `socketUnit`, it gets its listening socket from
   * a service manager, which keeps it open over a restart.
   */
  static async start(scene, { registry, args = [], ca, name, ready, socketUnit = false } = {}) {
    const broker = scene.add(new Broker());
    broker.ca = ca;
    broker.#hostName = name;
    broker.#folder = await scene.newFolder("broker");
    broker.#socketUnit = socketUnit;
    if (socketUnit) {
      const file = join(broker.#folder, "signal.toml");
      await writeFile(file, '[[listen]]\naddress = "systemd:http"\n');
      args = ["--config", file, ...args];
    }
    broker.#args = [...(registry ? ["-r", registry, "-d", join(broker.#folder, "data")] : []), ...args];
    await broker.#launch(await underTest.port());
    if (ready) await broker.#lives[0].waitForLine(ready, `the broker to log ${ready}`);
    return broker;
  }

  get signalUrl() {
    return `${this.url.replace(/^http/, "ws")}/signal`;
  }

  /** The lines that it has logged, in all its lives. */
  get lines() {
    return this.#lives.flatMap((life) => life.lines);
  }

  async health() {
    return JSON.parse(await curl(`${this.url}/health`, { ca: this.ca }));
  }

  /** Uploads a pod file as its owner would; the record that the broker answered with. */
  async upload(htmlPath) {
    const args = ["--header", "content-type: text/html", "--data-binary", `@${htmlPath}`];
    return JSON.parse(await curl(`${this.url}/pods`, { ca: this.ca, args }));
  }

  /** The pod as it is served. */
  download(slug) {
    return curl(`${this.url}/${slug}`, { ca: this.ca });
  }

  /** What the broker knows of a pod, as JSON. */
  meta(slug) {
    return curl(`${this.url}/${slug}/meta`, { ca: this.ca });
  }

  async stop() {
    await this.#lives.at(-1)?.end("SIGTERM");
  }

  async kill() {
    await this.#lives.at(-1).end("SIGKILL");
  }

  /** Starts anew on the same port and the same data. */
  restart() {
    return this.#launch(new URL(this.url).port);
  }

  /** Stops it as a service manager does and starts it again once it has ended. */
  async stopAndStart() {
    if (!this.#socketUnit) {
      await this.stop();
      return this.restart();
    }
    const life = this.#lives.at(-1);
    const since = life.lines.length;
    life.signal("SIGUSR1");
    await life.waitForLine(LISTENING, "the broker to listen again", { since });
  }

  evidence() {
    return this.#lives.flatMap((life) => life.evidence());
  }

  async #launch(port) {
    const address = this.#socketUnit ? [] : ["-H", "127.0.0.1", "-p", String(port)];
    const line = [underTest.command, ...underTest.args, ...address, ...this.#args];
    if (this.#socketUnit) line.unshift("python3", SOCKET_UNIT);
    const env = { HOME: this.#folder, RUST_BACKTRACE: "1" };
    const life = new Child(this.name, line[0], line.slice(1), { cwd: this.#folder, env });
    this.#lives.push(life);
    const [, url] = await life.waitForLine(LISTENING, "the broker to listen");
    this.url = this.#hostName ? url.replace(new URL(url).hostname, this.#hostName) : url;
  }
}

function chooseBroker() {
  const { GEMMAPOD_SIGNAL_BIN: binary, GEMMAPOD_SIGNAL_REFERENCE: reference } = process.env;
  if (reference === "1") {
    const home = dirname(createRequire(import.meta.url).resolve("@gemmapod/signal/package.json"));
    const args = [join(home, "dist", "cli.js")];
    const noTls = "the reference has no TLS";
    return { command: process.execPath, args, durable: "sqlite", port: freePort /* it refuses 0 */, noTls };
  }
  if (binary && isAbsolute(binary)) return { command: binary, args: [], durable: "redb", port: () => 0 };
  throw new Error("set GEMMAPOD_SIGNAL_BIN to the absolute path of a broker, or GEMMAPOD_SIGNAL_REFERENCE=1");
}
