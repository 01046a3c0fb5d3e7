"""One Ethernet for the machines of a test: a network namespace with a bridge, and one more for each machine."""

import subprocess


def run(*command: str) -> None:
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout.strip()}")


class Network:
    """The addresses are those of NixOS tests: 192.168.1.N, N counted from 1 in the order of the machines' names."""

    def __init__(self, prefix: str, names: list[str]) -> None:
        self.address = {name: f"192.168.1.{at + 1}" for at, name in enumerate(sorted(names))}
        self.namespace = {name: f"{prefix}-{at + 1}" for at, name in enumerate(sorted(names))}
        self._switch = f"{prefix}-0"
        self._made: list[str] = []

    def open(self) -> None:
        self._add(self._switch)
        self._in(self._switch, "ip", "link", "add", "bridge", "type", "bridge")
        self._in(self._switch, "ip", "link", "set", "bridge", "up")
        for at, (name, namespace) in enumerate(sorted(self.namespace.items())):
            port = f"port{at + 1}"
            self._add(namespace)
            self._in(self._switch, "ip", "link", "add", port, "type", "veth", "peer", "name", "eth1", "netns", namespace)
            self._in(self._switch, "ip", "link", "set", port, "master", "bridge", "up")
            self._in(namespace, "ip", "link", "set", "lo", "up")
            self._in(namespace, "ip", "address", "add", f"{self.address[name]}/24", "dev", "eth1")
            self._in(namespace, "ip", "link", "set", "eth1", "up")

    def close(self) -> None:
        for namespace in reversed(self._made):
            subprocess.run(["ip", "netns", "delete", namespace], check=False)
        self._made.clear()

    def admit_only(self, name: str, tcp: list[int], udp: list[int]) -> None:
        """NixOS's firewall: what is not an answer, local or ICMP is dropped, but for these ports."""
        allowed = "".join(
            f"{protocol} dport {{ {', '.join(map(str, ports))} }} accept\n" for protocol, ports in (("tcp", tcp), ("udp", udp)) if ports
        )
        rules = f"""
        flush ruleset
        table inet nixos-fw {{
          chain input {{
            type filter hook input priority filter; policy drop;
            iifname "lo" accept
            ct state established,related accept
            icmp type echo-request accept
            meta l4proto ipv6-icmp accept
            {allowed}
          }}
        }}"""
        command = ["ip", "netns", "exec", self.namespace[name], "nft", "--file", "-"]
        done = subprocess.run(command, check=False, input=rules, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise FirewallRefused(done.stdout.strip().splitlines()[0])

    def cut(self, name: str, whether: bool) -> None:
        self._in(self.namespace[name], "ip", "link", "set", "eth1", "down" if whether else "up")

    def _add(self, namespace: str) -> None:
        run("ip", "netns", "add", namespace)
        self._made.append(namespace)

    def _in(self, namespace: str, *command: str) -> None:
        run("ip", "netns", "exec", namespace, *command)


class FirewallRefused(Exception):
    """This kernel takes no nftables rules."""
