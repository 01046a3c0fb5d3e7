// A child process whose output is kept, can be waited for line by line, and which never outlives this one.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { stripVTControlCharacters } from "node:util";
import { STEP, within } from "./deadline.mjs";

const LAST_LINES = 25;
const GRACE = 5_000;

const alive = new Set();
process.on("exit", () => alive.forEach((child) => child.kill("SIGKILL")));
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.once(signal, () => process.exit(1));

/** This process's environment without anything that would configure a client or a broker, and with `extra`. */
export function cleanEnvironment(extra) {
  const kept = Object.entries(process.env).filter(([name]) => !/^(GEMMAPOD_|OLLAMA_|NODE_|PORT$|HOST$)/.test(name));
  return { ...Object.fromEntries(kept), ...extra };
}

export class Child {
  lines = [];
  #process;
  #watchers = new Set();

  constructor(name, command, args, { env, cwd }) {
    this.name = name;
    this.#process = spawn(command, args, { cwd, env: cleanEnvironment(env), stdio: ["pipe", "pipe", "pipe"] });
    this.#process.stdin.on("error", () => {}); // it may end before its stdin does
    for (const stream of [this.#process.stdout, this.#process.stderr]) {
      createInterface({ input: stream }).on("line", (line) => this.#keep(stripVTControlCharacters(line)));
    }
    alive.add(this.#process);
    this.exited = this.#ending(command);
  }

  /** The match of the first line, from number `since` on, that matches `pattern`; fails at once if the process ends before. */
  async waitForLine(pattern, awaited, { since = 0 } = {}) {
    let watcher;
    const seen = new Promise((resolve) => {
      watcher = (line) => {
        const match = line.match(pattern);
        if (match) resolve(match);
      };
      this.lines.slice(since).forEach(watcher);
      this.#watchers.add(watcher);
    });
    const gone = this.exited.then((how) => {
      throw new Error(`waited for ${awaited}, but ${this.name} ended (${how})`);
    });
    try {
      return await within(STEP, awaited, Promise.race([seen, gone]));
    } finally {
      this.#watchers.delete(watcher);
    }
  }

  signal(name) {
    this.#process.kill(name);
  }

  /** Sends `signal` and waits for the end; a process that ignores it is killed and reported. */
  async end(signal) {
    this.#process.kill(signal);
    try {
      return await within(GRACE, `${this.name} to end after ${signal}`, this.exited);
    } catch (late) {
      this.#process.kill("SIGKILL");
      await this.exited;
      throw late;
    }
  }

  stop() {
    return this.end("SIGKILL");
  }

  evidence() {
    return this.lines.slice(-LAST_LINES);
  }

  #keep(line) {
    this.lines.push(line);
    this.#watchers.forEach((watch) => watch(line));
  }

  async #ending(command) {
    try {
      const [code, signal] = await once(this.#process, "close");
      return signal ?? `exit code ${code}`;
    } catch (error) {
      return `${command} did not start: ${error.message}`;
    } finally {
      alive.delete(this.#process);
    }
  }
}
