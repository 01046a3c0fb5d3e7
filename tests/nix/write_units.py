"""Writes what an evaluated host declares into a directory that is laid over the root of a machine."""

import json
import os
import sys
from pathlib import Path


def main(out: Path) -> None:
    host = json.load(sys.stdin)
    if host["failed"]:
        sys.exit("the host is wrong:\n" + "\n".join(host["failed"]))
    system = out / "etc/systemd/system"
    write(out / "etc/gemmapod-signal/config.toml", host["toml"])
    write(out / "firewall.json", json.dumps({"tcp": host["tcp"], "udp": host["udp"]}) + "\n")
    for name, text in host["units"].items():
        write(system / name, text)
        for target in host["wanted"][name]:
            link = system / f"{target}.wants" / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            os.symlink(f"../{name}", link)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


main(Path(sys.argv[1]))
