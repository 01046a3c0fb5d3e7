"""MemoryMax= where systemd cannot see to it.

Where the kernel's memory controller is bound to cgroup v1, a machine's own tree of cgroup v2 has none, and systemd's
MemoryMax= has no effect. The main process of a unit is then put into a v1 group with the same limit: the kernel kills
it as it would have.
"""

from pathlib import Path

CONTROLLER = Path("/sys/fs/cgroup/memory")


class MemoryLimit:
    def __init__(self, name: str) -> None:
        self._name = name
        self._group: Path | None = None

    def apply(self, systemd: int, unit: dict[str, str]) -> None:
        """Puts the main process of `unit`, a unit of the machine with process 1 `systemd`, under its MemoryMax."""
        limit, main = unit.get("MemoryMax", "infinity"), unit.get("MainPID", "0")
        if limit == "infinity" or main == "0" or _is_enforced_by_systemd(systemd):
            return
        outside = _seen_from_outside(systemd, int(main))
        if outside is None:
            return
        if self._group is None:
            self._group = CONTROLLER / _own_group() / self._name
            self._group.mkdir(exist_ok=True)
        (self._group / "memory.limit_in_bytes").write_text(limit)
        (self._group / "cgroup.procs").write_text(str(outside))

    def lift(self) -> None:
        if self._group is not None:
            self._group.rmdir()
            self._group = None


def _is_enforced_by_systemd(systemd: int) -> bool:
    controllers = Path(f"/proc/{systemd}/root/sys/fs/cgroup/cgroup.controllers").read_text().split()
    return "memory" in controllers or not (CONTROLLER / "memory.limit_in_bytes").exists()


def _own_group() -> str:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            return path.lstrip("/")
    return ""


def _seen_from_outside(systemd: int, process: int) -> int | None:
    """The id here of a process that has the id `process` in the innermost pid namespace of `systemd`."""
    namespace = Path(f"/proc/{systemd}/ns/pid").readlink()
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            ids = next(line for line in status.read_text().splitlines() if line.startswith("NSpid:")).split()[1:]
            if ids[-1] == str(process) and (status.parent / "ns/pid").readlink() == namespace:
                return int(ids[0])
        except (OSError, StopIteration):
            continue
    return None
