"""One machine: systemd booted in a container of its own, offered as the `Machine` of the NixOS test driver."""

import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from memory import MemoryLimit
from network import Network

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BOOT_TIMEOUT = 60
POLL = 0.1

# In its own namespaces: the layers become one root, and systemd is process 1 of a cgroup tree of its own.
BOOT = """
set -eu
mount --make-rprivate /
mount -t proc proc /proc
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /run/systemd
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$HOME/upper,workdir=$HOME/work" "$HOME/root"
exec systemd-nspawn --quiet --boot --directory="$HOME/root" --machine="$NAME" --register=no --keep-unit \
    --network-namespace-path="/run/netns/$NETNS" --capability=all --console=pipe --link-journal=no "$@"
"""


class MachineError(Exception):
    """What a script expected of a machine did not come true."""


class Machine:
    """Commands run as root in bash with `set -euo pipefail`; times are in seconds, as in the NixOS driver."""

    def __init__(self, name: str, folder: Path, lower: Path, network: Network, shared: dict[Path, str], log: Callable[[str], None]) -> None:
        self.name = name
        self.booted = False
        self._folder = folder
        self._lower = lower
        self._network = network
        self._shared = shared
        self._log = log
        self._container: subprocess.Popen[bytes] | None = None
        self._systemd = 0
        self._complaint = ""
        self._memory = MemoryLimit(f"gemmapod-{folder.parent.name}-{name}")
        for part in ("upper/etc", "work", "root"):
            (folder / part).mkdir(parents=True)
        (folder / "upper/etc/hostname").write_text(name + "\n")
        hosts = "".join(f"{address} {host}.example.org {host}\n" for host, address in network.address.items())
        (folder / "upper/etc/hosts").write_text(f"127.0.0.1 localhost\n::1 localhost\n{hosts}")

    # Life of the machine.

    def start(self, allow_reboot: bool = False) -> None:
        if self._container is not None:
            return
        self.log("starts")
        environment = {
            "PATH": PATH,
            "HOME": str(self._folder),
            "LOWER": str(self._lower),
            "NAME": self.name,
            "NETNS": self._network.namespace[self.name],
            "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
        }
        binds = [f"--bind-ro={outside}:{inside}" for outside, inside in self._shared.items()]
        console = open(self._folder / "console", "ab")
        self._container = subprocess.Popen(
            ["unshare", "--mount", "--cgroup", "--pid", "--fork", "--kill-child", "--uts", "--ipc", "bash", "-c", BOOT, "boot", *binds],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
        )
        console.close()

    def wait_for_boot(self) -> None:
        if self.booted:
            return
        self.start()
        end = time.monotonic() + BOOT_TIMEOUT
        self._until(end, "systemd to be there", self._find_systemd)
        self._until(
            end, "the boot to end", lambda: self._enter("systemctl is-system-running --wait", end)[1].strip() in ("running", "degraded")
        )
        self.booted = True
        self.log("has booted")

    def crash(self) -> None:
        """Ends every process at once, with nothing written that the kernel does not have yet."""
        if self._container is None:
            return
        self.log("crashes")
        self._kill()

    def shutdown(self) -> None:
        if self._container is None:
            return
        self.log("shuts down")
        if self.booted:
            self._enter("systemctl poweroff", time.monotonic() + BOOT_TIMEOUT)
            try:
                self._container.wait(BOOT_TIMEOUT)
            except subprocess.TimeoutExpired:
                raise MachineError(f"{self.name} did not shut down within {BOOT_TIMEOUT} s") from None
            self._ended()
        else:
            self._kill()

    def reboot(self) -> None:
        self.shutdown()
        self.start()

    def block(self) -> None:
        self._network.cut(self.name, True)

    def unblock(self) -> None:
        self._network.cut(self.name, False)

    # Commands.

    def execute(self, command: str, check_return: bool = True, check_output: bool = True, timeout: int | None = 900) -> tuple[int, str]:
        self.wait_for_boot()
        end = time.monotonic() + (timeout if timeout is not None else 900)
        return self._enter(f"set -euo pipefail; {command}", end)

    def succeed(self, *commands: str, timeout: int | None = None) -> str:
        output = ""
        for command in commands:
            self.log(f"must succeed: {command}")
            status, printed = self.execute(command, timeout=timeout)
            if status != 0:
                raise MachineError(f"{self.name}: `{command}` ended with {status}:\n{printed}{self._complaint}")
            output += printed
        return output

    def fail(self, *commands: str, timeout: int | None = None) -> str:
        output = ""
        for command in commands:
            self.log(f"must fail: {command}")
            status, printed = self.execute(command, timeout=timeout)
            if status == 0:
                raise MachineError(f"{self.name}: `{command}` succeeded:\n{printed}")
            output += printed
        return output

    def wait_until_succeeds(self, command: str, timeout: int = 900) -> str:
        return self._wait_for_status(command, timeout, lambda status: status == 0)

    def wait_until_fails(self, command: str, timeout: int = 900) -> str:
        return self._wait_for_status(command, timeout, lambda status: status != 0)

    def wait_for_open_port(self, port: int, addr: str = "localhost", timeout: int = 900) -> None:
        self.wait_until_succeeds(f"nc -z {shlex.quote(addr)} {port}", timeout)

    def wait_for_closed_port(self, port: int, addr: str = "localhost", timeout: int = 900) -> None:
        self.wait_until_fails(f"nc -z {shlex.quote(addr)} {port}", timeout)

    def wait_for_file(self, filename: str, timeout: int = 900) -> None:
        self.wait_until_succeeds(f"test -e {shlex.quote(filename)}", timeout)

    def sleep(self, secs: int) -> None:
        time.sleep(secs)

    # Units.

    def systemctl(self, q: str, user: str | None = None) -> tuple[int, str]:
        if user is not None:
            raise MachineError("units of users are not offered here")
        return self.execute(f"systemctl {q}")

    def get_unit_info(self, unit: str, user: str | None = None) -> dict[str, str]:
        status, printed = self.systemctl(f"--no-pager show {shlex.quote(unit)}", user)
        if status != 0:
            raise MachineError(f"{self.name}: systemctl show {unit} ended with {status}")
        return dict(line.split("=", 1) for line in printed.splitlines() if "=" in line)

    def get_unit_property(self, unit: str, property: str, user: str | None = None) -> str:
        return self.get_unit_info(unit, user)[property]

    def require_unit_state(self, unit: str, require_state: str = "active") -> None:
        state = self.get_unit_property(unit, "ActiveState")
        if state != require_state:
            raise MachineError(f"{self.name}: {unit} is {state}, not {require_state}")

    def wait_for_unit(self, unit: str, user: str | None = None, timeout: int = 900) -> None:
        self.log(f"waits for {unit}")
        end = time.monotonic() + timeout

        def active() -> bool:
            info = self.get_unit_info(unit, user)
            if info["ActiveState"] == "failed" or (info["ActiveState"] == "inactive" and info.get("Job", "0") in ("", "0")):
                raise MachineError(f"{self.name}: {unit} is {info['ActiveState']}\n{self._journal(unit)}")
            return info["ActiveState"] == "active"

        self._until(end, f"{unit} to be active", active)
        self._memory.apply(self._systemd, self.get_unit_info(unit, user))

    def start_job(self, jobname: str, user: str | None = None) -> tuple[int, str]:
        return self.systemctl(f"start {shlex.quote(jobname)}", user)

    def stop_job(self, jobname: str, user: str | None = None) -> tuple[int, str]:
        return self.systemctl(f"stop {shlex.quote(jobname)}", user)

    # Files.

    def copy_from_host(self, source: str, target: str) -> None:
        """Copies a file or a folder into the machine."""
        self.wait_for_boot()
        at = Path(source)
        pack = ["tar", "--create", "--directory", str(at.parent), at.name]
        script = f"mkdir -p {shlex.quote(target)}.copied && tar --extract --no-same-owner --directory {shlex.quote(target)}.copied && mkdir -p $(dirname {shlex.quote(target)}) && mv -T {shlex.quote(target)}.copied/{shlex.quote(at.name)} {shlex.quote(target)} && rmdir {shlex.quote(target)}.copied"
        with subprocess.Popen(pack, stdout=subprocess.PIPE) as packed:
            done = subprocess.run(self._command(script), check=False, stdin=packed.stdout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0 or packed.returncode != 0:
            raise MachineError(f"{self.name}: {source} could not be copied to {target}: {done.stdout}")

    def log(self, message: str) -> None:
        self._log(f"{self.name}: {message}")

    # The inside.

    def lay(self, folder: Path) -> None:
        """Lays a folder over the root of the machine, before it starts."""
        shutil.copytree(folder, self._folder / "upper", symlinks=True, dirs_exist_ok=True)

    def report(self) -> str:
        """What to show of this machine when a script failed."""
        if not self.booted:
            console = self._folder / "console"
            return console.read_text(errors="replace")[-3000:] if console.exists() else "never started"
        return self._journal(None)

    def _journal(self, unit: str | None) -> str:
        which = f"-u {shlex.quote(unit)}" if unit else ""
        return self._enter(f"journalctl --no-pager -n 40 -o short-precise {which}", time.monotonic() + 10)[1]

    def _wait_for_status(self, command: str, timeout: int, wanted: Callable[[int], bool]) -> str:
        self.log(f"waits for: {command}")
        self.wait_for_boot()
        end = time.monotonic() + timeout
        printed = ""

        def tried() -> bool:
            nonlocal printed
            status, printed = self._enter(f"set -euo pipefail; {command}", end)
            return wanted(status)

        try:
            self._until(end, f"`{command}`", tried)
        except MachineError as error:
            raise MachineError(f"{error}; it last printed:\n{printed}{self._complaint}") from None
        return printed

    def _until(self, end: float, awaited: str, probe: Callable[[], bool]) -> None:
        while not probe():
            if self._container is None or self._container.poll() is not None:
                raise MachineError(f"{self.name} is off, so that there is no waiting for {awaited}\n{self.report()}")
            if time.monotonic() >= end:
                raise MachineError(f"{self.name}: waited too long for {awaited}")
            time.sleep(POLL)

    def _command(self, script: str) -> list[str]:
        enter = ["nsenter", "--target", str(self._systemd), "--all", "--wdns=/root", "env", "--ignore-environment"]
        return [*enter, f"PATH={PATH}", "HOME=/root", "LANG=C.UTF-8", "bash", "-c", script]

    def _enter(self, script: str, end: float) -> tuple[int, str]:
        """The status and what is printed to the standard output; `_complaint` is what went to the standard error."""
        with open(self._folder / "stderr", "w+b") as complaint:
            process = subprocess.Popen(
                self._command(script),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaint,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            try:
                printed, _ = process.communicate(timeout=max(1.0, end - time.monotonic()))
                status = process.returncode
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                printed, _ = process.communicate()
                status = 124
            complaint.seek(0)
            self._complaint = complaint.read(10_000).decode(errors="replace")
        return status, printed

    def _find_systemd(self) -> bool:
        """Process 1 of the container, seen from outside: a child of systemd-nspawn, the child of unshare."""
        assert self._container is not None
        for nspawn in _children(self._container.pid):
            for child in _children(nspawn):
                try:
                    name = Path(f"/proc/{child}/comm").read_text().strip()
                except OSError:
                    continue
                if name == "systemd":
                    self._systemd = child
                    return (Path(f"/proc/{child}/root") / "run/systemd/private").exists()
        return False

    def _kill(self) -> None:
        """Kills the first process of the machine's pid namespace, and with it all others: it ends when they have."""
        assert self._container is not None
        for first in _children(self._container.pid) or [self._container.pid]:
            os.kill(first, signal.SIGKILL)
        self._ended()

    def _ended(self) -> None:
        assert self._container is not None
        self._container.wait()
        self._container = None
        self._systemd = 0
        self.booted = False
        self._memory.lift()


def _children(process: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []
