// A real ACME directory: pebble, with its DNS, which says that every name is this host.

import { execFile, execFileSync } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { Child } from "./child.mjs";
import { curl } from "./curl.mjs";
import { STEP, until } from "./deadline.mjs";
import { freePort } from "./ports.mjs";

const run = promisify(execFile);

/** Why there can be no pebble here, if there can be none. */
export const NO_PEBBLE = missing();

export class Pebble {
  /** Looks for challenges at the broker's `httpPort` and `tlsPort`. */
  static async start(scene, { httpPort, tlsPort }) {
    const pebble = new Pebble();
    const folder = await scene.newFolder("pebble");
    const [port, management, dns, names] = [await freePort(), await freePort(), await freePort(), await freePort()];
    /** The file of the root that vouches for the directory's own TLS. */
    pebble.root = join(folder, "root.pem");
    const key = join(folder, "key.pem");
    const subject = ["-subj", "/CN=pebble", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE"];
    const kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    await run("openssl", ["req", "-x509", ...kind, ...subject, "-keyout", key, "-out", pebble.root]);

    const config = {
      listenAddress: `127.0.0.1:${port}`,
      managementListenAddress: `127.0.0.1:${management}`,
      certificate: pebble.root,
      privateKey: key,
      httpPort,
      tlsPort,
    };
    await writeFile(join(folder, "pebble.json"), JSON.stringify({ pebble: config }));
    const nowhere = ["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""];
    const resolver = ["-dns01", `127.0.0.1:${dns}`, "-management", `127.0.0.1:${names}`];
    scene.add(new Child("pebble's DNS", "pebble-challtestsrv", [...nowhere, ...resolver], { cwd: folder }));
    const args = ["-config", join(folder, "pebble.json"), "-dnsserver", `127.0.0.1:${dns}`];
    scene.add(new Child("pebble", "pebble", args, { cwd: folder, env: { PEBBLE_VA_NOSLEEP: "1" } }));

    pebble.directory = `https://127.0.0.1:${port}/dir`;
    const up = (url, ...args) => curl(url, { ca: pebble.root, args }).then(() => true, () => false);
    await until(STEP, "pebble to answer", () => up(pebble.directory));
    const here = ["--data", '{"ip":"127.0.0.1"}'];
    await until(STEP, "pebble's DNS to answer", () => up(`http://127.0.0.1:${names}/set-default-ipv4`, ...here));
    /** The file of the root that vouches for the certificates that it issues. */
    pebble.issuer = join(folder, "issuer.pem");
    await writeFile(pebble.issuer, await curl(`https://127.0.0.1:${management}/roots/0`, { ca: pebble.root }));
    return pebble;
  }
}

function missing() {
  try {
    for (const program of ["pebble", "pebble-challtestsrv", "openssl"]) execFileSync("which", [program], { stdio: "ignore" });
  } catch {
    return "pebble is not installed and could not be (tests/acme/setup)";
  }
}
