// Loaded with `node --import`: gives the host a WebRTC whose native part npm ships, since node-datachannel's has to be downloaded.

import { registerHooks } from "node:module";

const standIn = new URL("./wrtc-polyfill.mjs", import.meta.url).href;

registerHooks({
  resolve(specifier, context, next) {
    return specifier === "node-datachannel/polyfill" ? { url: standIn, shortCircuit: true } : next(specifier, context);
  },
});
