// A TCP proxy before the broker that counts connections and the pings in them.

import { once } from "node:events";
import { connect, createServer } from "node:net";
import { STEP, within } from "./deadline.mjs";

const PING = 0x9;

export class CountingProxy {
  name = "proxy";
  connections = 0;
  pings = 0;
  #broker;
  #sockets = new Set();
  #watchers = new Set();
  #server = createServer((client) => this.#serve(client));

  static async start(scene, broker) {
    const proxy = scene.add(new CountingProxy());
    proxy.#broker = new URL(broker.url);
    proxy.#server.listen(0, "127.0.0.1");
    await once(proxy.#server, "listening");
    proxy.host = `127.0.0.1:${proxy.#server.address().port}`;
    return proxy;
  }

  /** Waits until the broker has sent `count` more pings. */
  async pinged(count) {
    const enough = this.pings + count;
    let watcher;
    const seen = new Promise((resolve) => {
      watcher = () => this.pings >= enough && resolve();
      this.#watchers.add(watcher);
    });
    try {
      await within(STEP, `${count} pings of the broker`, seen);
    } finally {
      this.#watchers.delete(watcher);
    }
  }

  evidence() {
    return [`${this.connections} connections, ${this.pings} pings`];
  }

  async stop() {
    this.#sockets.forEach((socket) => socket.destroy());
    this.#server.close();
    await once(this.#server, "close");
  }

  #serve(client) {
    this.connections += 1;
    const broker = connect(this.#broker.port, this.#broker.hostname);
    for (const [from, to] of [[client, broker], [broker, client]]) {
      this.#sockets.add(from);
      from.on("error", () => {}); // it is closed then
      from.on("close", () => {
        this.#sockets.delete(from);
        to.destroy();
      });
      from.pipe(to);
    }
    const opcodes = opcodeReader();
    broker.on("data", (bytes) => {
      this.pings += opcodes(bytes).filter((opcode) => opcode === PING).length;
      this.#watchers.forEach((watch) => watch());
    });
  }
}

/** A function that is given the bytes of a server one after another and returns the opcodes of the frames that they end. */
function opcodeReader() {
  let bytes = Buffer.alloc(0);
  let upgraded = false;
  return (more) => {
    bytes = Buffer.concat([bytes, more]);
    const opcodes = [];
    if (!upgraded) {
      const end = bytes.indexOf("\r\n\r\n");
      if (end < 0) return opcodes;
      bytes = bytes.subarray(end + 4);
      upgraded = true;
    }
    for (let size = frameSize(bytes); size <= bytes.length; size = frameSize(bytes)) {
      opcodes.push(bytes[0] & 0xf);
      bytes = bytes.subarray(size);
    }
    return opcodes;
  };
}

/** The size of the unmasked frame that `bytes` begin with, or infinity where they do not say yet. */
function frameSize(bytes) {
  if (bytes.length < 2) return Infinity;
  const length = bytes[1];
  const head = { 126: 4, 127: 10 }[length] ?? 2;
  if (bytes.length < head) return Infinity;
  if (length === 126) return head + bytes.readUInt16BE(2);
  return head + (length === 127 ? Number(bytes.readBigUInt64BE(2)) : length);
}
