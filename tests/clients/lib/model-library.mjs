// What the runtime's model in the browser asks the Internet for, answered within the browser. The library here does what
// Transformers.js 4.2.0 with ONNX Runtime was seen to do that a policy can block: it imports its WebAssembly factory from
// a blob, compiles WebAssembly, and fetches from the model's host.

const LIBRARY = "https://cdn.jsdelivr.net/npm/@huggingface/transformers@4.2.0/dist/transformers.min.js";
const FACTORY = "https://cdn.jsdelivr.net/npm/onnxruntime-web/dist/factory.mjs";
const WASM = "https://cdn.jsdelivr.net/npm/onnxruntime-web/dist/factory.wasm";
const MODELS = "https://gemmapod.com/api/browser-models";
const CONFIG = "https://huggingface.co/tested/model/resolve/main/config.json";

const SOURCE = `
export const AutoTokenizer = { from_pretrained: async () => (await fetch("${CONFIG}")).json() };
export const Gemma4ForConditionalGeneration = {
  async from_pretrained() {
    const source = await (await fetch("${FACTORY}")).text();
    const factory = await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
    return factory.default(await (await fetch("${WASM}")).arrayBuffer());
  },
};
export class TextStreamer {}
`;

const ANSWERS = {
  [MODELS]: { contentType: "application/json", body: JSON.stringify([{ id: "tested/model", label: "Tested", sizeMB: 1 }]) },
  [LIBRARY]: { contentType: "text/javascript", body: SOURCE },
  [CONFIG]: { contentType: "application/json", body: "{}" },
  [FACTORY]: { contentType: "text/javascript", body: "export default (bytes) => WebAssembly.instantiate(bytes);" },
  [WASM]: { contentType: "application/wasm", body: Buffer.from([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]) },
};

/** All that a pod must be able to ask for before its model answers. */
export const MODEL_LIBRARY_URLS = Object.keys(ANSWERS).sort();

/**
 * Serves the library to the pages of `context`, which believe that they have a GPU; the URLs that they ask for. What a
 * page's policy blocks is never asked for, and is in the page's `violations`.
 */
export async function serveModelLibrary(context) {
  const asked = new Set();
  await context.addInitScript(() => {
    Object.defineProperty(navigator, "gpu", { value: {} });
    window.violations = [];
    document.addEventListener("securitypolicyviolation", ({ effectiveDirective, blockedURI }) => {
      window.violations.push(`${effectiveDirective} ${blockedURI}`);
    });
  });
  await context.route(/^https:\/\/(cdn\.jsdelivr\.net|gemmapod\.com|huggingface\.co)\//, (route) => {
    const url = route.request().url();
    asked.add(url);
    const answer = ANSWERS[url] ?? { status: 404, body: "" };
    return route.fulfill({ ...answer, headers: { "access-control-allow-origin": "*", "content-type": answer.contentType ?? "text/plain" } });
  });
  return asked;
}
