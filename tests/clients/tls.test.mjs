// The real clients over wss and https. Each trusts the one authority that signed the broker's certificate, as it would
// be trusted outside of tests; none is told to overlook an error.

import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { NO_TLS, command } from "./lib/broker.mjs";
import { POD_ID, chat, servedPod } from "./lib/conversation.mjs";
import { curl } from "./lib/curl.mjs";
import { Host } from "./lib/host.mjs";
import { NO_PEBBLE, Pebble } from "./lib/pebble.mjs";
import { freePort } from "./lib/ports.mjs";
import { scenario } from "./lib/scene.mjs";
import { Browser } from "./lib/visitor.mjs";

for (const name of ["localhost", "127.0.0.1"]) {
  scenario(`a chat under a certificate of the broker's own authority for ${name}`, { skip: NO_TLS }, async (scene) => {
    await chatsUnder(scene, { ...(await selfSigned(scene)), name });
  });
}

for (const challenge of ["tls-alpn-01", "http-01"]) {
  scenario(`a chat under a certificate that pebble issued over ${challenge}`, { skip: NO_TLS ?? NO_PEBBLE }, async (scene) => {
    await chatsUnder(scene, await issued(scene, challenge));
  });
}

scenario("who does not know the authority stays away", { skip: NO_TLS }, async (scene) => {
  const { broker, model, pod, url } = await servedPod(scene, await selfSigned(scene));
  await assert.rejects(curl(url), /SSL certificate problem/);
  const stranger = await Browser.start(scene);
  await assert.rejects(stranger.visit(url), /ERR_CERT_AUTHORITY_INVALID/);
  const host = await Host.launch(scene, { pod, model });
  await host.waitForLine(/unable to verify the first certificate|self-signed certificate/, "the host to refuse the certificate");
  assert.deepEqual((await broker.health()).origins, []);
});

async function chatsUnder(scene, options) {
  const { broker, model, pod, browser, url } = await servedPod(scene, options);
  assert.match(url, /^https:/);
  assert.match(broker.signalUrl, /^wss:/);
  await Host.start(scene, { pod, model, ca: options.ca });
  assert.deepEqual((await broker.health()).origins, [POD_ID]);
  await chat(await browser.visit(url), model, "Who vouches for you?");
}

/** A broker with an authority of its own, for `servedPod`; the authority is had as an owner would have it. */
async function selfSigned(scene) {
  const folder = await scene.newFolder("settings");
  const [config, ca] = [join(folder, "signal.toml"), join(folder, "ca.pem")];
  await writeFile(
    config,
    `data_dir = "${folder}/data"
tls = { mode = "self-signed", domains = ["localhost", "127.0.0.1"] }
`,
  );
  await mkdir(join(folder, "data"));
  await writeFile(ca, await command("ca", "--config", config));
  return { args: ["--config", config], ca };
}

/** A broker whose certificate comes from pebble, for `servedPod`. */
async function issued(scene, challenge) {
  const folder = await scene.newFolder("settings");
  const [config, httpPort, tlsPort] = [join(folder, "signal.toml"), await freePort(), await freePort()];
  const pebble = await Pebble.start(scene, { httpPort, tlsPort });
  // The port that the other challenge takes is not there at all.
  const redirect = `[[listen]]\naddress = "127.0.0.1:${httpPort}"\npurpose = "redirect"`;
  await writeFile(
    config,
    `data_dir = "${folder}/data"
tls.domains = ["localhost"]
[acme]
directory = "${pebble.directory}"
root = "${pebble.root}"
challenges = ["${challenge}"]
[[listen]]
address = "127.0.0.1:${tlsPort}"
tls = true
${challenge === "http-01" ? redirect : ""}
`,
  );
  return { args: ["--config", config], ca: pebble.issuer, name: "localhost", ready: /a certificate was issued/ };
}
