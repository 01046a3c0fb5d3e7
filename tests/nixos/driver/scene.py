"""The machines of one test: what its Nix file declares, as the module makes it of each host, on one network."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from machine import Machine
from network import FirewallRefused, Network

TESTS = Path(__file__).resolve().parent.parent
UNITS = TESTS.parent / "nix" / "units"
CLIENTS = TESTS.parent / "clients"
INSIDE_CLIENTS = "/opt/clients"
DATA_OF_OLD = TESTS / "data-of-0.1.0.tar.gz"


@dataclass(frozen=True)
class Tools:
    """What all machines are given beside Debian and the chat peers: the root below, and files by their path inside."""

    lower: Path
    shared: dict[Path, str]


class Scene:
    """The machines of a test, a path without `.nix` and `.py`; their folder goes when it is closed."""

    def __init__(self, test: Path, tools: Tools, work: Path, log: Callable[[str], None]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"{test.name}-", dir=work))
        self.machines: list[Machine] = []
        nodes = declared(test)
        self._network = Network(f"gp{self.folder.name[-6:].replace('_', 'x')}", list(nodes))
        shared = {
            **tools.shared,
            DATA_OF_OLD: "/etc/data-of-0.1.0.tar.gz",
            CLIENTS: INSIDE_CLIENTS,
            (CLIENTS / "node_modules").resolve(): f"{INSIDE_CLIENTS}/node_modules",
        }
        self.without_firewall: str | None = None
        try:
            self._network.open()
            for node, is_host in sorted(nodes.items()):
                machine = Machine(node, self.folder / node, tools.lower, self._network, shared, log)
                self.machines.append(machine)
                machine.lay(TESTS / "driver" / "overlay")
                if is_host:
                    self._declare(test, machine)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for machine in self.machines:
            machine.crash()
        self._network.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _declare(self, test: Path, machine: Machine) -> None:
        """Lays the files that the module makes of a host over the machine, and admits what its firewall lets in."""
        host = self.folder / f"{machine.name}.nix"
        host.write_text(f"(import {test}.nix).nodes.{machine.name}\n")
        made = self.folder / f"{machine.name}-units"
        subprocess.run([UNITS, host, made], check=True)
        ports = json.loads((made / "firewall.json").read_text())
        (made / "firewall.json").unlink()
        machine.lay(made)
        try:
            self._network.admit_only(machine.name, ports["tcp"], ports["udp"])
        except FirewallRefused as refused:
            self.without_firewall = str(refused)


def declared(test: Path) -> dict[str, bool]:
    """The nodes of a test, and whether each of them is a host with a broker."""
    expression = f"builtins.mapAttrs (_: node: node ? services) (import {test}.nix).nodes"
    with tempfile.TemporaryDirectory() as state:
        done = subprocess.run(
            ["nix-instantiate", "--eval", "--strict", "--json", "--expr", expression],
            env={**os.environ, "NIX_STATE_DIR": state},
            stdout=subprocess.PIPE,
            check=True,
        )
    nodes: dict[str, bool] = json.loads(done.stdout)
    return nodes
